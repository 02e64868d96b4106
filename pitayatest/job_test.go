package pitayatest_test

import (
	"context"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// oddJobs breaks a rule of JobStore.
type oddJobs struct {
	*pitaya.MemoryJobs
	odd string
}

func (o *oddJobs) Enqueue(ctx context.Context, id string, body []byte) error {
	if o.odd == "ignores the context" {
		ctx = context.WithoutCancel(ctx)
	}
	return o.MemoryJobs.Enqueue(ctx, id, body)
}

func (o *oddJobs) Fetch(ctx context.Context) (pitaya.JobLease, error) {
	l, err := o.MemoryJobs.Fetch(ctx)
	if err != nil {
		return nil, err
	}
	return &oddLease{l, o.odd}, nil
}

func (o *oddJobs) DeadJobs(ctx context.Context, after uint64, limit int) ([]pitaya.DeadJob, error) {
	if o.odd == "has one page" {
		after = 0
	}
	return o.MemoryJobs.DeadJobs(ctx, after, limit)
}

func (o *oddJobs) DeleteDead(ctx context.Context, id string) error {
	if o.odd == "finds anything dead" {
		o.MemoryJobs.DeleteDead(ctx, id)
		return ctx.Err()
	}
	return o.MemoryJobs.DeleteDead(ctx, id)
}

type oddLease struct {
	pitaya.JobLease
	odd string
}

func (o *oddLease) Extend(ctx context.Context) error {
	if o.odd == "does not extend" {
		return ctx.Err()
	}
	return o.JobLease.Extend(ctx)
}

func (o *oddLease) Retry(ctx context.Context, delay time.Duration) error {
	if o.odd == "retries at once" {
		delay = 0
	}
	return o.JobLease.Retry(ctx, delay)
}

func (o *oddLease) Release(ctx context.Context) error {
	if o.odd == "takes a release for a failure" {
		return o.JobLease.Retry(ctx, 0)
	}
	return o.JobLease.Release(ctx)
}

func TestJobStoreChecks(t *testing.T) {
	checks := func(odd string) []pitayatest.Check {
		return pitayatest.JobChecks(pitayatest.JobStoreOptions{
			Open: func(t testing.TB) pitaya.JobStore {
				s := pitaya.NewMemoryJobs(pitaya.MemoryJobsOptions{})
				t.Cleanup(func() { s.Close(context.Background()) })
				return &oddJobs{s, odd}
			},
			Synctest: true,
		})
	}
	wantFailures(t, checks(""))
	wantFailures(t, checks("ignores the context"), "contexts")
	wantFailures(t, checks("has one page"), "pages")
	wantFailures(t, checks("finds anything dead"), "dead", "ids", "close")
	wantFailures(t, checks("does not extend"), "extend", "close")
	wantFailures(t, checks("retries at once"), "retry")
	wantFailures(t, checks("takes a release for a failure"), "release", "bodies")
}
