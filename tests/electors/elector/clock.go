package main

import (
	"context"
	"time"

	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// shiftedClock makes an elector behave as if its machine's clock were wrong: every time that it writes is moved by
// offset, and every time that it reads is moved back, so that what it sees is relative to its own wrong clock.
// Go programs do not ask libc for the time, so the usual preloaded libraries cannot do this from outside.
type shiftedClock struct {
	resourcelock.Interface
	offset time.Duration
}

func (s shiftedClock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := s.Interface.Get(ctx)
	if err != nil {
		return nil, nil, err
	}
	// The raw bytes stay as they are: client-go uses them only to notice that the record changed.
	shifted := shift(*record, -s.offset)
	return &shifted, raw, nil
}

func (s shiftedClock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return s.Interface.Create(ctx, shift(record, s.offset))
}

func (s shiftedClock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return s.Interface.Update(ctx, shift(record, s.offset))
}

func shift(record resourcelock.LeaderElectionRecord, offset time.Duration) resourcelock.LeaderElectionRecord {
	if !record.AcquireTime.IsZero() {
		record.AcquireTime.Time = record.AcquireTime.Add(offset)
	}
	if !record.RenewTime.IsZero() {
		record.RenewTime.Time = record.RenewTime.Add(offset)
	}
	return record
}
