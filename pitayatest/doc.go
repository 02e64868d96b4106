// Package pitayatest helps to test games made with [pitaya], and implementations of its seams. It needs no network, no
// containers and no assertion library.
//
// # Testing a game
//
// [NewServer] starts a server that ends with its test, and [Server.Client] connects a client to it, in memory. What the
// client is told to do fails the test when it does not work, so a test of a handler is short:
//
//	func TestGreet(t *testing.T) {
//		srv := pitayatest.NewServer(t, pitaya.Config{}, func(s *pitaya.Server) { s.Register(&Hello{}) })
//		got := pitayatest.Request[Message](srv.Client(t), "Hello.Greet", &Message{Text: "Ada"})
//		if got.Text != "Hello, Ada!" {
//			t.Errorf("got %q", got.Text)
//		}
//	}
//
// The function that sets the server up need not look at errors: they come back from Run, and fail the test.
//
// A [Client] keeps all pushes until the test asks for them, route by route, so none is lost and no test has to be there
// first: [Client.ExpectPush] and [Push] take the next one or wait for it, [Client.NoPush] wants none to be left.
// [Client.ExpectKick] and [Client.ExpectClosed] wait for the end of the connection.
//
// # Time
//
// All of it works in bubbles of [testing/synctest], where time passes at once and exactly. There a test of a turn that
// ends after a minute takes none:
//
//	synctest.Test(t, func(t *testing.T) {
//		srv := pitayatest.NewServer(t, pitaya.Config{}, setUpGame)
//		c := srv.Client(t)
//		c.Notify("Game.Begin", nil)
//		time.Sleep(time.Minute - time.Nanosecond)
//		c.NoPush()
//		time.Sleep(time.Nanosecond)
//		c.ExpectPush("onTurnEnd")
//	})
//
// Servers, clients and clusters must be made inside the bubble. Sockets, and with them listeners other than those in
// memory, do not work there.
//
// # Clusters
//
// [NewCluster] makes a cluster in memory, and [Cluster.NewServer] a server in it. Its servers can be cut off from each
// other, lose their place in discovery, die, and be deployed anew: see [Cluster] and [Server.Restart].
//
// # Testing an implementation of a seam
//
// Each seam of a server has rules, which the comment of its interface lists, and a suite here that checks them:
// [TestDiscovery], [TestTransport], [TestGroupStore], [TestJobStore], [TestBindingStore], [TestSerializer], [TestTracer]. What
// comes with the library passes them, and so should what replaces it.
//
// # Traces
//
// A [Tracer] in Config.Tracer keeps the spans of servers, so that a test can look at what a request has led to.
package pitayatest
