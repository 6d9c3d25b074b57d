// The elector of controller-runtime: a manager that does nothing but elect, configured as operators configure theirs.
// Prints a JSON line an event, like the elector beside it:
//
//	{"event":"started-leading"}
//	{"event":"stopped-leading"}
//
// Its identity is controller-runtime's own, the host's name and a UUID. With -clock-offset its lock is wrapped, and is
// otherwise the one that controller-runtime makes for itself. SIGTERM ends it in the ordinary way, and
// LeaderElectionReleaseOnCancel gives the lease back.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/leaderelection"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/recorder"
)

var output sync.Mutex

func emit(event string) {
	output.Lock()
	defer output.Unlock()
	line := map[string]any{"event": event, "time": time.Now().UTC()}
	// Standard output is the harness's pipe: when it is gone, so is the reason to run.
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		os.Exit(1)
	}
}

// leader is started by the manager when it leads.
type leader struct{}

func (leader) Start(ctx context.Context) error {
	emit("started-leading")
	<-ctx.Done()
	return nil
}

func (leader) NeedLeaderElection() bool { return true }

// noEvents drops what a lock that is made by hand would tell as Events: the manager makes a recorder for its own alone.
type noEvents struct{}

func (noEvents) GetEventRecorderFor(string) record.EventRecorder { return &record.FakeRecorder{} }
func (noEvents) GetEventRecorder(string) recorder.EventRecorder  { return &events.FakeRecorder{} }

func main() {
	kubeconfig := flag.String("kubeconfig-path", "", "path of the kubeconfig")
	namespace := flag.String("namespace", "default", "namespace of the Lease")
	lease := flag.String("lease", "", "name of the Lease")
	leaseDuration := flag.Duration("lease-duration", 15*time.Second, "how long a candidate waits after the last renewal")
	renewDeadline := flag.Duration("renew-deadline", 10*time.Second, "how long a leader tries to renew before it gives up")
	retryPeriod := flag.Duration("retry-period", 2*time.Second, "how long to wait between attempts")
	offset := flag.Duration("clock-offset", 0, "how far this elector's clock is off")
	flag.Parse()
	ctrl.SetLogger(klog.Background())

	err := run(*kubeconfig, *namespace, *lease, *leaseDuration, *renewDeadline, *retryPeriod, *offset)
	emit("stopped-leading")
	if err != nil {
		fmt.Fprintf(os.Stderr, "elector: %v\n", err)
		os.Exit(1)
	}
}

func run(kubeconfig, namespace, lease string, leaseDuration, renewDeadline, retryPeriod, offset time.Duration) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("-kubeconfig-path %s: %w", kubeconfig, err)
	}
	var lock resourcelock.Interface
	if offset != 0 {
		lock, err = leaderelection.NewResourceLock(config, noEvents{}, leaderelection.Options{
			LeaderElection:          true,
			LeaderElectionNamespace: namespace,
			LeaderElectionID:        lease,
			RenewDeadline:           renewDeadline,
		})
		if err != nil {
			return err
		}
		lock = shiftedClock{Interface: lock, offset: offset}
	}
	elector, err := ctrl.NewManager(config, manager.Options{
		LeaderElectionResourceLockInterface: lock,

		LeaderElection:                true,
		LeaderElectionNamespace:       namespace,
		LeaderElectionID:              lease,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &leaseDuration,
		RenewDeadline:                 &renewDeadline,
		RetryPeriod:                   &retryPeriod,
		Metrics:                       server.Options{BindAddress: "0"},
	})
	if err != nil {
		return err
	}
	if err := elector.Add(leader{}); err != nil {
		return err
	}
	return elector.Start(ctrl.SetupSignalHandler())
}
