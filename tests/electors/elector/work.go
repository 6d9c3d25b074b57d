package main

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// How long the worker rests between two writes.
const rest = 100 * time.Millisecond

// How often the worker writes at most after its elector has given up.
const late = 20

// A worker writes the time into a ConfigMap under a key of its own, again and again. It asks nobody whether its elector
// still leads: that is what fencing is for. A refusal ends it if its elector has given up by then, and so do many writes
// that nobody refuses; before that it tries again, as a leader must that is new, and whose lease not every part of the API
// server knows of yet.
type worker struct {
	client    kubernetes.Interface
	namespace string
	configMap string
	key       string
	identity  string
	lost      atomic.Bool
}

func (w *worker) run(ctx context.Context) {
	for left := late; ctx.Err() == nil && left > 0; {
		if w.lost.Load() {
			left--
		}
		patch, err := json.Marshal(map[string]any{"data": map[string]string{w.key: time.Now().Format(time.RFC3339Nano)}})
		if err != nil {
			return
		}
		_, err = w.client.CoreV1().ConfigMaps(w.namespace).
			Patch(ctx, w.configMap, types.MergePatchType, patch, metav1.PatchOptions{})
		switch {
		case err == nil:
			emit(event{Event: "worked", Identity: w.identity})
		case apierrors.IsForbidden(err):
			emit(event{Event: "refused", Identity: w.identity, Message: err.Error()})
			if w.lost.Load() {
				return
			}
		}
		time.Sleep(rest)
	}
}
