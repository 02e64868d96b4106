//go:build !race

package pitaya_test

// raceDetector is whether the test runs under it, where pools throw away some of what they get, at random.
const raceDetector = false
