package pitaya

import "google.golang.org/protobuf/proto"

// Doors for the tests of jobs.

// JobArg decodes the argument of a job.
func JobArg(body []byte, arg proto.Message) error {
	j, err := decodeJob(body)
	if err != nil {
		return err
	}
	_, _, err = j.messages(arg, nil)
	return err
}

// RecodeJob decodes a job and encodes it.
func RecodeJob(body []byte) ([]byte, error) {
	j, err := decodeJob(body)
	if err != nil {
		return nil, err
	}
	return j.encode()
}
