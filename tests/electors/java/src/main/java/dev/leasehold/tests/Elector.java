package dev.leasehold.tests;

import io.kubernetes.client.extended.leaderelection.LeaderElectionConfig;
import io.kubernetes.client.extended.leaderelection.LeaderElector;
import io.kubernetes.client.extended.leaderelection.Lock;
import io.kubernetes.client.extended.leaderelection.resourcelock.LeaseLock;
import io.kubernetes.client.openapi.ApiClient;
import io.kubernetes.client.util.ClientBuilder;
import io.kubernetes.client.util.KubeConfig;
import java.io.File;
import java.io.FileReader;
import java.time.Duration;

/**
 * The elector of the official Java client. Prints a JSON line an event, like the elector beside it: started-leading,
 * stopped-leading, and new-leader with leader.
 *
 * <p>Arguments: KUBECONFIG NAMESPACE LEASE IDENTITY SECONDS RETRY_MILLISECONDS SECONDS_AHEAD, the last by which its
 * clock is ahead. SIGTERM closes the elector, which gives the lease back.
 */
public final class Elector {
  private Elector() {}

  public static void main(String[] arguments) throws Exception {
    if (arguments.length != 7) {
      System.err.println("needs KUBECONFIG NAMESPACE LEASE IDENTITY SECONDS RETRY_MILLISECONDS SECONDS_AHEAD");
      System.exit(2);
    }
    String identity = arguments[3];
    Duration leaseDuration = Duration.ofSeconds(Long.parseLong(arguments[4]));
    Duration retryPeriod = Duration.ofMillis(Long.parseLong(arguments[5]));

    File file = new File(arguments[0]);
    KubeConfig kubeconfig;
    try (FileReader reader = new FileReader(file)) {
      kubeconfig = KubeConfig.loadKubeConfig(reader);
    }
    kubeconfig.setFile(file);
    ApiClient client = ClientBuilder.kubeconfig(kubeconfig).build();

    long ahead = Long.parseLong(arguments[6]);
    Lock lock = new LeaseLock(arguments[1], arguments[2], identity, client);
    if (ahead != 0) {
      lock = new ShiftedClock(lock, ahead);
    }
    LeaderElectionConfig config =
        new LeaderElectionConfig(lock, leaseDuration, leaseDuration.multipliedBy(2).dividedBy(3), retryPeriod);
    LeaderElector elector = new LeaderElector(config);
    Runtime.getRuntime().addShutdownHook(new Thread(elector::close));
    elector.run(
        () -> emit("started-leading", identity, null),
        () -> emit("stopped-leading", identity, null),
        leader -> emit("new-leader", identity, leader));
  }

  private static synchronized void emit(String event, String identity, String leader) {
    String more = leader == null ? "" : ",\"leader\":\"" + leader + "\"";
    System.out.println("{\"event\":\"" + event + "\",\"identity\":\"" + identity + "\"" + more + "}");
  }
}
