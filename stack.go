package pitaya

// stretch makes the stack of a new goroutine as large as most handlers need it,
// at once and while there is nothing on it. Left to itself the runtime would
// double it again and again in their midst, and go through all that is on it
// each time; that costs more than a small handler does.
//
//go:noinline
func stretch() {
	var room [stackRoom]byte
	reach(&room, stackRoom-1)
}

// stackRoom leads to a stack of 8 KiB.
const stackRoom = 5 << 10

// reach keeps the compiler from leaving the room out.
//
//go:noinline
func reach(room *[stackRoom]byte, i int) { room[i] = 1 }
