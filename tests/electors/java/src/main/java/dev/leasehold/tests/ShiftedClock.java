package dev.leasehold.tests;

import io.kubernetes.client.extended.leaderelection.LeaderElectionRecord;
import io.kubernetes.client.extended.leaderelection.Lock;
import io.kubernetes.client.openapi.ApiException;
import java.util.Date;

/**
 * Makes an elector behave as if its machine's clock were wrong: every time that it writes is moved, and every time
 * that it reads is moved back. A preloaded libfaketime stalls the virtual machine's timers.
 */
final class ShiftedClock implements Lock {
  private final Lock lock;
  private final long aheadMilliseconds;

  ShiftedClock(Lock lock, long aheadSeconds) {
    this.lock = lock;
    this.aheadMilliseconds = aheadSeconds * 1000;
  }

  @Override
  public LeaderElectionRecord get() throws ApiException {
    return shifted(lock.get(), -aheadMilliseconds);
  }

  @Override
  public boolean create(LeaderElectionRecord record) {
    return lock.create(shifted(record, aheadMilliseconds));
  }

  @Override
  public boolean update(LeaderElectionRecord record) {
    return lock.update(shifted(record, aheadMilliseconds));
  }

  @Override
  public String identity() {
    return lock.identity();
  }

  @Override
  public String describe() {
    return lock.describe();
  }

  private static LeaderElectionRecord shifted(LeaderElectionRecord record, long milliseconds) {
    return new LeaderElectionRecord(
        record.getHolderIdentity(),
        record.getLeaseDurationSeconds(),
        shifted(record.getAcquireTime(), milliseconds),
        shifted(record.getRenewTime(), milliseconds),
        record.getLeaderTransitions(),
        record.getOwnerReference());
  }

  private static Date shifted(Date time, long milliseconds) {
    return time == null ? null : new Date(time.getTime() + milliseconds);
  }
}
