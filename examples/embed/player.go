package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/pitaya-go/pitaya"
)

// play is a player, who greets and then listens until one of the two ends.
func play(ctx context.Context, url string, out io.Writer) error {
	client, err := pitaya.Dial(ctx, url, &pitaya.ClientConfig{OnPush: map[string]func(payload []byte){
		"onAnnounce": func(payload []byte) {
			var text string
			if err := json.Unmarshal(payload, &text); err != nil {
				text = err.Error()
			}
			fmt.Fprintln(out, "announced:", text)
		},
	}})
	if err != nil {
		return err
	}
	defer client.Close()
	var text string
	if err := client.Request(ctx, "game.hello.greet", "Ada", &text); err != nil {
		return err
	}
	fmt.Fprintln(out, text)
	select {
	case <-ctx.Done():
	case <-client.Done():
		if err := client.Err(); !errors.Is(err, io.EOF) {
			return err
		}
		fmt.Fprintln(out, "the server has ended")
	}
	return nil
}
