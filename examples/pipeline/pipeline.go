package main

import (
	"context"
	"errors"
	"log"
	"time"

	"github.com/pitaya-go/pitaya"
)

// addPipeline puts four functions around all handlers of a server. Those before run in the order in which they are added, and
// so do those after. An error before ends it at once: neither the handler nor any function after it is called.
func addPipeline(srv *pitaya.Server, logger *log.Logger) error {
	return errors.Join(
		srv.Before(validate),
		srv.Before(begin),
		srv.After(translate),
		srv.After(finish(logger)),
	)
}

// A request that has a method Valid is asked before its handler sees it. Config.ValidateRequests does the same for a method
// Validate; a function of one's own is for other rules.
func validate(ctx context.Context, in any) (context.Context, any, error) {
	if v, ok := in.(interface{ Valid() error }); ok {
		if err := v.Valid(); err != nil {
			return ctx, in, pitaya.NewError(err, "SHOP-INVALID", map[string]string{"route": pitaya.RouteFromContext(ctx)})
		}
	}
	return ctx, in, nil
}

// beganKey is the key in the context for when a handler began. A type of its own meets no key of anybody else's.
type beganKey struct{}

// What one function puts into the context, the handler and the functions after it find there.
func begin(ctx context.Context, in any) (context.Context, any, error) {
	return context.WithValue(ctx, beganKey{}, time.Now()), in, nil
}

// translate makes of the errors of the game what clients are to know of them. Those that are unknown may have inner details
// in their texts, such as addresses and queries: they are logged, and the client gets another text.
func translate(ctx context.Context, out any, err error) (any, error) {
	var coded *pitaya.Error
	switch {
	case err == nil, errors.As(err, &coded):
		return out, err
	case errors.Is(err, errNoItem):
		return nil, pitaya.NewError(err, "SHOP-NO-ITEM")
	case errors.Is(err, errNoGold):
		return nil, pitaya.NewError(err, "SHOP-NO-GOLD")
	}
	pitaya.LoggerFromContext(ctx).Error("unexpected", "err", err)
	return nil, pitaya.Errorf(pitaya.CodeInternal, "the shop is closed, come again later")
}

// finish notes how long each request took and what became of it.
func finish(logger *log.Logger) pitaya.AfterFunc {
	return func(ctx context.Context, out any, err error) (any, error) {
		began, _ := ctx.Value(beganKey{}).(time.Time)
		result := "ok"
		if err != nil {
			result = pitaya.ErrorCode(err)
		}
		logger.Printf("%s took %v: %s", pitaya.RouteFromContext(ctx), time.Since(began).Round(time.Microsecond), result)
		return out, err
	}
}
