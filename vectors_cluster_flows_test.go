package pitaya_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/transporttest"
)

// clusterMessage is a message between servers, of a step.
type clusterMessage struct {
	Subject  string
	Hex      hexBytes
	Sample   hexBytes `json:"sample_hex"`
	Vary     []string `json:"volatile_metadata"`
	Type     string   `json:"message"`
	Expected bool     `json:"expects_reply"`
}

// check compares what was published.
func (want *clusterMessage) check(m *nats.Msg) error {
	if err := wantText("subject", m.Subject, want.Subject); err != nil {
		return err
	}
	switch {
	case want.Sample != nil:
		return wantRequest(m.Data, want.Sample, want.Vary...)
	case (m.Reply != "") != want.Expected:
		return fmt.Errorf("%s: reply subject %q", m.Subject, m.Reply)
	case want.Type == "protos.Request":
		return wantRequest(m.Data, want.Hex)
	}
	return wantBytes(m.Subject, m.Data, want.Hex)
}

// TestBackendFlowVectors plays the frontend to a backend, over NATS.
func TestBackendFlowVectors(t *testing.T) {
	t.Parallel()
	url := startNATS(t).URL()
	natsServer(t, url, vectorRoom(), pitaya.Config{}, registerVectors(t, &VectorHandler{}, &VectorRemote{}), vectorFront())
	// Subjects of the family have no dots, replies have.
	peer := newNATSPeer(t, url, "*")
	testVectors(t, "backend_flows", func(v struct {
		Steps []struct {
			Request   *clusterMessage `json:"request_to_backend"`
			Publishes *clusterMessage `json:"backend_publishes"`
			Answer    *hexBytes       `json:"answer_to_backend"`
			Answers   *clusterMessage `json:"backend_answers"`
		}
	}) error {
		var answers <-chan *nats.Msg
		var last *nats.Msg
		for i, step := range v.Steps {
			var err error
			switch {
			case step.Request != nil:
				answers = peer.request(subjectOf(vectorRoom()), step.Request.Hex)
			case step.Publishes != nil:
				last = transporttest.Await(t, peer.seen)
				err = step.Publishes.check(last)
			case step.Answer != nil:
				peer.respond(last, *step.Answer)
			case step.Answers != nil:
				err = wantBytes("answer", transporttest.Await(t, answers).Data, step.Answers.Hex)
			default:
				err = errors.New("unknown step")
			}
			if err != nil {
				return fmt.Errorf("step %d: %w", i, err)
			}
		}
		// Nothing else is published: what a server sends on one connection arrives in its order.
		select {
		case m := <-peer.seen:
			return fmt.Errorf("published beyond the flow: %s %x", m.Subject, m.Data)
		default:
			return nil
		}
	})
}

// withTimeout puts another setting into the answer that tells of it.
func withTimeout(b []byte, limit time.Duration) []byte {
	return bytes.Replace(b, []byte(`"timeout":"5s"`), []byte(`"timeout":"`+limit.String()+`"`), 1)
}

// TestFrontendFlowVectors plays the client and the backend to a frontend, over NATS.
func TestFrontendFlowVectors(t *testing.T) {
	t.Parallel()
	url := startNATS(t).URL()
	number := int64(0)
	testVectors(t, "frontend_flows", func(v struct {
		Name  string
		Steps []struct {
			Request   *clusterMessage `json:"request_to_frontend"`
			Answers   *clusterMessage `json:"frontend_answers"`
			Publishes *clusterMessage `json:"frontend_publishes"`
			Published *clusterMessage `json:"published_to_frontend"`
			Sends     *hexBytes       `json:"client_sends"`
			Receives  *hexBytes       `json:"client_receives"`
			Silent    bool            `json:"client_sees_nothing"`
			Closed    bool            `json:"client_connection_closed"`
			Requests  *clusterMessage `json:"frontend_requests"`
			Answer    *hexBytes       `json:"answer_to_frontend"`
		}
	}) error {
		number++
		limit := 5 * time.Second
		subjects := []string{"pitaya/connector/bindings", subjectOf(vectorRoom())}
		switch v.Name {
		case "backend known but not listening":
			subjects = subjects[:1]
		case "backend does not answer in time":
			limit = 200 * time.Millisecond
		}
		// A server for each flow. It counts its sessions as the one of the vectors did.
		front := natsServer(t, url, vectorFront(), pitaya.Config{NATSClient: pitaya.NATSConfig{RequestTimeout: limit}}, nil, vectorRoom())
		defer front.stop(t)
		pitaya.CountSessionsFrom(front.Server, number-1)
		c := front.connect(t)
		defer c.Close()
		peer := newNATSPeer(t, url, subjects...)
		defer peer.nc.Close()
		var answers <-chan *nats.Msg
		var last *nats.Msg
		var otherwise error
		for i, step := range v.Steps {
			var err error
			switch {
			case step.Request != nil:
				answers = peer.request(step.Request.Subject, step.Request.Hex)
			case step.Answers != nil:
				err = wantBytes("answer", transporttest.Await(t, answers).Data, step.Answers.Hex)
			case step.Publishes != nil:
				err = step.Publishes.check(transporttest.Await(t, peer.seen))
			case step.Published != nil:
				err = peer.nc.Publish(step.Published.Subject, step.Published.Hex)
			case step.Sends != nil:
				last = nil
				_, err = c.Write(*step.Sends)
			case step.Receives != nil && bytes.Equal(*step.Receives, []byte{byte(pitaya.PacketKick), 0, 0, 0}):
				if body := c.expect(pitaya.PacketKick); len(body) > 0 {
					otherwise = errors.New("the body of the kick says why")
				}
			case step.Receives != nil:
				want := withTimeout(*step.Receives, limit)
				if d := len(want) - len(*step.Receives); d > 0 {
					want[3] += byte(d) // the packet's length
				}
				got := c.next()
				b, perr := pitaya.AppendPacket(nil, got.Type, got.Body)
				err = errors.Join(perr, wantBytes("client", b, want))
				if code := []byte(`{"code":"PIT-500",`); len(subjects) == 1 && !bytes.Contains(got.Body, code) {
					t.Errorf("%s: got %q, want code PIT-500", v.Name, got.Body)
				}
			case step.Silent:
				// A call that comes after it is answered, so it has been looked at.
				peer.call(subjectOf(vectorFront()), userRequest(t, "sys.kick", "\x0a\x01x", "{}"))
				err = flow(c, flowStep{ServerSilent: true})
			case step.Closed:
				c.expectClosed()
			case step.Requests != nil:
				last = transporttest.Await(t, peer.seen)
				err = step.Requests.check(last)
			case step.Answer != nil:
				if last == nil {
					last = transporttest.Await(t, peer.seen)
				}
				peer.respond(last, *step.Answer)
			default:
				err = errors.New("unknown step")
			}
			if err != nil {
				return fmt.Errorf("step %d: %w", i, err)
			}
		}
		return otherwise
	})
}
