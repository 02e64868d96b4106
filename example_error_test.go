package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pitaya-go/pitaya"
)

// The error of a handler reaches the client as a code, a text and metadata.
func ExampleError() {
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		return pitaya.Handle(s, "shop.buy", func(ctx context.Context, item *string) (*string, error) {
			return nil, &pitaya.Error{
				Code:     "SHOP-1",
				Message:  "not enough gold",
				Metadata: map[string]string{"missing": "10"},
			}
		})
	})
	defer stop()

	err := dial().Request(context.Background(), "shop.buy", "sword", nil)
	var coded *pitaya.Error
	if errors.As(err, &coded) {
		fmt.Println(coded.Code, coded.Message, coded.Metadata)
	}
	// Output:
	// SHOP-1 not enough gold map[missing:10]
}

func ExampleErrorf() {
	err := pitaya.Errorf("SHOP-2", "no %s in stock: %w", "sword", fs.ErrNotExist)
	fmt.Println(err)
	fmt.Println(pitaya.ErrorCode(err), errors.Is(err, fs.ErrNotExist))
	// Output:
	// no sword in stock: file does not exist
	// SHOP-2 true
}

// NewError gives a code to an error that is there already.
func ExampleNewError() {
	err := pitaya.NewError(fs.ErrPermission, "SHOP-3", map[string]string{"door": "closed"})
	fmt.Println(err.Code, err, err.Metadata)
	// Output:
	// SHOP-3 permission denied map[door:closed]
}

// The code is found however often an error was wrapped.
func ExampleErrorCode() {
	err := fmt.Errorf("buy: %w", pitaya.Errorf("SHOP-2", "no sword in stock"))
	fmt.Println(pitaya.ErrorCode(err))
	fmt.Println(pitaya.ErrorCode(errors.New("plain")))
	fmt.Printf("%q\n", pitaya.ErrorCode(nil))
	// Output:
	// SHOP-2
	// PIT-000
	// ""
}
