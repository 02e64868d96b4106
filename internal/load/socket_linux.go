package load

import (
	"errors"
	"syscall"
)

// ipBindAddressNoPort is IP_BIND_ADDRESS_NO_PORT of ip(7).
const ipBindAddressNoPort = 24

// shareports makes the kernel choose the port when it connects and not when a source address is bound, so that only ports
// in use toward the same server are taken.
func shareports(network, address string, c syscall.RawConn) error {
	var err error
	return errors.Join(c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, ipBindAddressNoPort, 1)
		if errors.Is(err, syscall.ENOPROTOOPT) || errors.Is(err, syscall.EOPNOTSUPP) {
			err = nil // IPv6, or a kernel that is older than the option
		}
	}), err)
}
