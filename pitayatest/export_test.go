package pitayatest

import "testing"

// The tests run the checks of the suites one by one, on implementations that break a rule.

type Check = check

func (c check) Name() string     { return c.name }
func (c check) Run(t testing.TB) { c.run(t) }

var (
	DiscoveryChecks  = discoveryChecks
	GroupChecks      = groupChecks
	JobChecks        = jobChecks
	BindingChecks    = bindingChecks
	SerializerChecks = serializerChecks
	TracerChecks     = tracerChecks
)

var TransportChecks = transportChecks
