package pitaya

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	mrand "math/rand/v2"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// An RPCJob says what a worker does with a reliable RPC. It has the methods of
// Pitaya's. [NewRPCJob] returns one that calls the remote, which is what is used
// where no other is registered; embedding it is the way to change one method.
//
// For each run the worker calls GetArgReply, ServerDiscovery and then RPC. An
// error of any of them is a failed run: the job is tried again, as its
// [RetryOptions] say. One that wraps [ErrNoRetry] sends it to the dead jobs at
// once. A panic is recovered, and a failed run. The methods are called from
// several goroutines at once if the worker's concurrency is above 1.
type RPCJob interface {
	// ServerDiscovery chooses the server that the RPC goes to; "" lets the routing
	// function of the route's type choose, as for any RPC. metadata is what
	// ReliableRPC was given, as JSON brings it: numbers are float64.
	ServerDiscovery(route string, metadata map[string]any) (serverID string, err error)
	// RPC does the job. It may be called more than once for a job, also after a
	// call that has succeeded: what it does has to bear that. ctx ends when the
	// server does and cannot wait any longer; the job is then given to another
	// worker if RPC returns an error.
	RPC(ctx context.Context, serverID, route string, reply, arg proto.Message) error
	// GetArgReply returns new messages for the argument, which the worker decodes
	// into it, and for the reply. What is nil the worker makes itself, of the type
	// that ReliableRPC was given: that works for all types in
	// [protoregistry.GlobalTypes], which are those that the program contains.
	GetArgReply(route string) (arg, reply proto.Message, err error)
}

// ErrNoRetry is wrapped by errors of an [RPCJob] that trying again will not
// change: the job goes to the dead jobs at once.
var ErrNoRetry = errors.New("pitaya: the job is not to be tried again")

// RetryOptions say when a reliable RPC is tried again that has failed.
//
// The pause before each retry is the smaller one of MaxDelay and
//
//	c^Exponential seconds + MinDelay + r × (c+1)
//
// where c is the number of retries that came before it, and r is a random time
// below MaxRandom. This is Pitaya's formula, with times in place of numbers of
// seconds. 0^Exponential is 0 unless Exponential is 0, so the first retry comes
// after MinDelay and a random time.
type RetryOptions struct {
	// Enabled is whether a failed job is tried again at all.
	Enabled bool
	// Max is how often. A job that has failed once more is dead.
	Max int
	// Exponential is how fast the pauses grow, at most 100.
	Exponential int
	// MinDelay is the pause before the first retry, and added to all others.
	MinDelay time.Duration
	// MaxDelay bounds the pauses, the random part included. Zero means a day,
	// which is also the most.
	MaxDelay time.Duration
	// MaxRandom is the random part of the first pause at most.
	MaxRandom time.Duration
}

const (
	maxRetryDelay       = 24 * time.Hour
	maxRetryExponential = 100
)

// check refuses what cannot be meant. Times below a millisecond are numbers of
// seconds without a unit.
func (o RetryOptions) check() error {
	for _, d := range []struct {
		name string
		d    time.Duration
	}{{"MinDelay", o.MinDelay}, {"MaxDelay", o.MaxDelay}, {"MaxRandom", o.MaxRandom}} {
		if d.d < 0 || d.d > 0 && d.d < time.Millisecond || d.d > maxRetryDelay {
			return fmt.Errorf("pitaya: RetryOptions.%s of %v: must be zero, or from 1ms to %v", d.name, d.d, maxRetryDelay)
		}
	}
	switch {
	case o.Max < 0:
		return fmt.Errorf("pitaya: RetryOptions.Max of %d: must not be negative", o.Max)
	case o.Exponential < 0 || o.Exponential > maxRetryExponential:
		return fmt.Errorf("pitaya: RetryOptions.Exponential of %d: must be from 0 to %d", o.Exponential, maxRetryExponential)
	case o.MaxDelay > 0 && o.MinDelay > o.MaxDelay:
		return fmt.Errorf("pitaya: RetryOptions.MinDelay of %v is above MaxDelay", o.MinDelay)
	}
	return nil
}

// Delay returns the pause before the next retry of a job that has failed so many
// times. It is another one each time if MaxRandom is set.
func (o RetryOptions) Delay(failures int) time.Duration {
	count := float64(max(failures-1, 0))
	seconds := math.Pow(count, float64(o.Exponential)) + o.MinDelay.Seconds()
	if o.MaxRandom > 0 {
		seconds += mrand.Float64() * o.MaxRandom.Seconds() * (count + 1)
	}
	longest := maxRetryDelay
	if o.MaxDelay > 0 {
		longest = min(longest, o.MaxDelay)
	}
	if seconds >= longest.Seconds() { // also if it is infinite
		return longest
	}
	return time.Duration(seconds * float64(time.Second))
}

// jobVersion is the version of the format of jobs.
const jobVersion = 1

const (
	// maxJobBody bounds jobs that are read. NATS takes 1 MiB unless it is told
	// otherwise.
	maxJobBody = 8 << 20
	// maxJobType bounds the names of messages.
	maxJobType = 1 << 10
)

// jobFormat is the format of jobs: a JSON object. What the library itself needs
// stands there to be read by people and tools. The argument is protobuf, as in any
// RPC: the form of Go structs in JSON, in which Pitaya puts it into Redis, loses
// the fields that the writer does not know and needs the Go type to be read, and
// nothing of Pitaya reads this queue.
type jobFormat struct {
	Version   int               `json:"v"`
	Route     string            `json:"route"`
	Metadata  map[string]any    `json:"metadata,omitempty"`
	ArgType   string            `json:"argType,omitempty"` // full name of the message; "": no argument
	Arg       []byte            `json:"arg,omitempty"`
	ReplyType string            `json:"replyType,omitempty"`
	Retry     jobRetry          `json:"retry"`
	Enqueued  int64             `json:"enqueued"` // milliseconds since 1970
	Server    string            `json:"server,omitempty"`
	RequestID string            `json:"requestId,omitempty"`
	Trace     map[string]string `json:"trace,omitempty"`
}

// jobRetry is RetryOptions, with times in milliseconds.
type jobRetry struct {
	Enabled     bool  `json:"enabled"`
	Max         int   `json:"max"`
	Exponential int   `json:"exp"`
	MinDelay    int64 `json:"minDelay"`
	MaxDelay    int64 `json:"maxDelay"`
	MaxRandom   int64 `json:"maxRandom"`
}

// JobInfo is what a job says about itself, but for its argument.
type JobInfo struct {
	Route     string         // of the remote
	Metadata  map[string]any // that ReliableRPC was given; numbers are float64
	ArgType   string         // full name of the argument's message; "" without one
	ReplyType string         // full name of the reply's message; "" without one
	Retry     RetryOptions
	Enqueued  time.Time
	Server    string // id of the server that has enqueued it
	RequestID string // of the client's request in which it was enqueued; "" for others
}

// job is a job to be done.
type job struct {
	Info  JobInfo
	Arg   []byte
	Trace map[string]string
}

// ParseJob reads the body of a job, of a [DeadJob] say. It takes any bytes.
func ParseJob(body []byte) (JobInfo, error) {
	j, err := decodeJob(body)
	return j.Info, err
}

var errJobFormat = errors.New("pitaya: malformed job")

// decodeJob reads a job. The text of its errors has nothing of the job in it.
func decodeJob(body []byte) (job, error) {
	if len(body) > maxJobBody {
		return job{}, fmt.Errorf("%w: %d bytes", errJobFormat, len(body))
	}
	var f jobFormat
	// The version first: what else there is depends on it.
	var v struct {
		Version *int `json:"v"`
	}
	if err := json.Unmarshal(body, &v); err != nil || v.Version == nil {
		return job{}, fmt.Errorf("%w: no JSON object with a version", errJobFormat)
	}
	if *v.Version != jobVersion {
		return job{}, fmt.Errorf("%w: version %d, and this server knows %d", errJobFormat, *v.Version, jobVersion)
	}
	if err := json.Unmarshal(body, &f); err != nil {
		if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return job{}, fmt.Errorf("%w: the type of %q", errJobFormat, t.Field)
		}
		return job{}, fmt.Errorf("%w: a value that cannot be read", errJobFormat)
	}
	route, err := ParseRoute(f.Route)
	if err != nil || route.ServerType == "" {
		return job{}, fmt.Errorf("%w: the route", errJobFormat)
	}
	for _, name := range []string{f.ArgType, f.ReplyType} {
		if name != "" && (len(name) > maxJobType || !protoreflect.FullName(name).IsValid()) {
			return job{}, fmt.Errorf("%w: the name of a message", errJobFormat)
		}
	}
	if f.ArgType == "" && len(f.Arg) > 0 {
		return job{}, fmt.Errorf("%w: an argument without a type", errJobFormat)
	}
	retry, err := f.Retry.options()
	if err != nil {
		return job{}, fmt.Errorf("%w: the retries", errJobFormat)
	}
	return job{
		Info: JobInfo{
			Route: f.Route, Metadata: f.Metadata, ArgType: f.ArgType, ReplyType: f.ReplyType, Retry: retry,
			Enqueued: time.UnixMilli(f.Enqueued), Server: f.Server, RequestID: f.RequestID,
		},
		Arg: f.Arg, Trace: boundCarrier(f.Trace),
	}, nil
}

func (r jobRetry) options() (RetryOptions, error) {
	o := RetryOptions{Enabled: r.Enabled, Max: r.Max, Exponential: r.Exponential}
	for _, d := range []struct {
		to   *time.Duration
		from int64
	}{{&o.MinDelay, r.MinDelay}, {&o.MaxDelay, r.MaxDelay}, {&o.MaxRandom, r.MaxRandom}} {
		if d.from < 0 || d.from > maxRetryDelay.Milliseconds() {
			return o, errJobFormat
		}
		*d.to = time.Duration(d.from) * time.Millisecond
	}
	return o, o.check()
}

// encode returns the body of a job.
func (j job) encode() ([]byte, error) {
	i := &j.Info
	body, err := json.Marshal(jobFormat{
		Version: jobVersion, Route: i.Route, Metadata: i.Metadata, ArgType: i.ArgType, Arg: j.Arg, ReplyType: i.ReplyType,
		Retry: jobRetry{
			Enabled: i.Retry.Enabled, Max: i.Retry.Max, Exponential: i.Retry.Exponential,
			MinDelay: i.Retry.MinDelay.Milliseconds(), MaxDelay: i.Retry.MaxDelay.Milliseconds(), MaxRandom: i.Retry.MaxRandom.Milliseconds(),
		},
		Enqueued: i.Enqueued.UnixMilli(), Server: i.Server, RequestID: i.RequestID, Trace: j.Trace,
	})
	if err != nil {
		return nil, fmt.Errorf("pitaya: metadata of a job: %w", err)
	}
	if len(body) > maxJobBody {
		return nil, Errorf(CodeBadRequest, "pitaya: reliable RPC to %s: a job of %d bytes, and workers take %d", i.Route, len(body), maxJobBody)
	}
	return body, nil
}

// newJob makes a job, without what its context knows.
func newJob(route string, metadata map[string]any, reply, arg proto.Message, retry RetryOptions) (job, error) {
	r, err := ParseRoute(route)
	if err != nil {
		return job{}, err
	}
	if r.ServerType == "" {
		return job{}, Errorf(CodeBadRequest, "pitaya: reliable RPC to %q: the route must begin with a server type", route)
	}
	if err := retry.check(); err != nil {
		return job{}, err
	}
	j := job{Info: JobInfo{Route: route, Metadata: metadata, Retry: retry, Enqueued: time.Now()}}
	if arg != nil {
		j.Info.ArgType = string(arg.ProtoReflect().Descriptor().FullName())
		if j.Arg, err = proto.Marshal(arg); err != nil {
			return job{}, NewError(err, CodeBadRequest)
		}
	}
	if reply != nil {
		j.Info.ReplyType = string(reply.ProtoReflect().Descriptor().FullName())
	}
	return j, nil
}

// newJobID returns an id of 24 hexadecimal digits, as Pitaya's are.
func newJobID() string {
	var b [12]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// messages returns the argument, decoded, and a message for the reply: those that
// the application has made, and others by their types. Without an argument, arg is
// nil.
func (j job) messages(arg, reply proto.Message) (_, _ proto.Message, err error) {
	if reply == nil {
		if reply, err = messageOfType(j.Info.ReplyType); err != nil {
			return nil, nil, err
		}
	}
	if j.Info.ArgType == "" {
		return nil, reply, nil
	}
	if arg == nil {
		if arg, err = messageOfType(j.Info.ArgType); err != nil {
			return nil, nil, err
		}
	}
	if err := proto.Unmarshal(j.Arg, arg); err != nil {
		return nil, nil, fmt.Errorf("%w: pitaya: the argument is no %s", ErrNoRetry, arg.ProtoReflect().Descriptor().FullName())
	}
	return arg, reply, nil
}

// messageOfType returns a new message of a type that the program contains. One
// that nobody has asked for is empty.
func messageOfType(name string) (proto.Message, error) {
	if name == "" {
		return newEmptyMessage(), nil
	}
	t, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		return nil, fmt.Errorf("pitaya: this program has no message %q", name)
	}
	return t.New().Interface(), nil
}
