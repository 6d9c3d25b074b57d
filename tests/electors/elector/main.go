// The elector is a small program that does nothing but elect: client-go's leader election on a Lease, as every
// controller embeds it. The tests start several, kill some, and read what happened from the JSON lines that it prints
// on standard output, one an event:
//
//	{"event":"started-leading","identity":"a","time":"..."}
//	{"event":"stopped-leading","identity":"a","time":"..."}
//	{"event":"new-leader","identity":"a","leader":"b","time":"..."}
//
// With -work-on it works while it leads, and on when it does not lead any more (see work.go):
//
//	{"event":"worked","identity":"a","time":"..."}
//	{"event":"refused","identity":"a","message":"...","time":"..."}
//
// SIGTERM ends it in the ordinary way: the context is cancelled, and with -release-on-cancel the lease is given back.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

type event struct {
	Event    string    `json:"event"`
	Identity string    `json:"identity"`
	Leader   string    `json:"leader,omitempty"`
	Message  string    `json:"message,omitempty"`
	Time     time.Time `json:"time"`
}

var output sync.Mutex

func emit(e event) {
	output.Lock()
	defer output.Unlock()
	e.Time = time.Now().UTC()
	// Standard output is the harness's pipe: when it is gone, so is the reason to run.
	if err := json.NewEncoder(os.Stdout).Encode(e); err != nil {
		os.Exit(1)
	}
}

func main() {
	klog.InitFlags(nil)
	kubeconfig := flag.String("kubeconfig", "", "path of the kubeconfig")
	namespace := flag.String("namespace", "default", "namespace of the Lease")
	lease := flag.String("lease", "", "name of the Lease")
	identity := flag.String("identity", "", "holderIdentity of this elector")
	leaseDuration := flag.Duration("lease-duration", 15*time.Second, "how long a candidate waits after the last renewal")
	renewDeadline := flag.Duration("renew-deadline", 10*time.Second, "how long a leader tries to renew before it gives up")
	retryPeriod := flag.Duration("retry-period", 2*time.Second, "how long to wait between attempts")
	release := flag.Bool("release-on-cancel", false, "give the lease back when told to stop")
	workOn := flag.String("work-on", "", "name of a ConfigMap to write to while leading, and after")
	workAs := flag.String("work-as", "", "key to write in that ConfigMap")
	offset := flag.Duration("clock-offset", 0, "how far this elector's clock is off")
	flag.Parse()

	if err := run(*kubeconfig, *namespace, *lease, *identity, *leaseDuration, *renewDeadline, *retryPeriod, *release, *offset, *workOn, *workAs); err != nil {
		fmt.Fprintf(os.Stderr, "elector: %v\n", err)
		os.Exit(1)
	}
}

func run(kubeconfig, namespace, lease, identity string, leaseDuration, renewDeadline, retryPeriod time.Duration, release bool, offset time.Duration, workOn, workAs string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("-kubeconfig %s: %w", kubeconfig, err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("-kubeconfig %s: %w", kubeconfig, err)
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	var lock resourcelock.Interface = &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: namespace, Name: lease},
		Client:     client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
	}
	if offset != 0 {
		lock = shiftedClock{Interface: lock, offset: offset}
	}
	var working sync.WaitGroup
	worker := worker{client: client, namespace: namespace, configMap: workOn, key: workAs, identity: identity}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock:            lock,
		LeaseDuration:   leaseDuration,
		RenewDeadline:   renewDeadline,
		RetryPeriod:     retryPeriod,
		ReleaseOnCancel: release,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) {
				emit(event{Event: "started-leading", Identity: identity})
				if workOn != "" {
					working.Go(func() { worker.run(ctx) })
				}
			},
			OnStoppedLeading: func() {
				emit(event{Event: "stopped-leading", Identity: identity})
				worker.lost.Store(true)
			},
			OnNewLeader: func(leader string) {
				emit(event{Event: "new-leader", Identity: identity, Leader: leader})
			},
		},
	})
	if err != nil {
		return err
	}
	elector.Run(ctx)
	working.Wait()
	if ctx.Err() == nil {
		return fmt.Errorf("leadership of %s/%s was lost", namespace, lease)
	}
	return nil
}
