#!/usr/bin/env bash
# Starts Slurm on this machine, one node with two partitions, for `make test-slurm`: Debian's packages, as root.
#   tests/start_slurm.sh FOLDER
# Its settings, state and logs lie in FOLDER; SLURM_CONF=FOLDER/slurm.conf is what its commands need. A job in the
# partition `urgent` takes the place of one in `main`, which gets 60 seconds to save and is queued again.
set -euo pipefail
folder=$(realpath -m "$1")
host=$(hostname -s)
cores=$(nproc)
mkdir -p "$folder/state" "$folder/spool" /run/munge /var/log/munge /var/lib/munge /etc/munge

if ! command -v slurmctld > /dev/null || ! command -v munged > /dev/null; then
    timeout 600 apt-get install -y -qq slurm-wlm munge > "$folder/install.log" 2>&1
fi
[ -s /etc/munge/munge.key ] || dd if=/dev/urandom of=/etc/munge/munge.key bs=1 count=1024 status=none
chown -R munge: /run/munge /var/log/munge /var/lib/munge /etc/munge
chmod 400 /etc/munge/munge.key
pgrep -x munged > /dev/null || runuser -u munge -- /usr/sbin/munged

cat > "$folder/slurm.conf" << CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=36817
SlurmdPort=36818
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=5,bf_interval=5
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=30
MinJobAge=3600
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores State=UNKNOWN
PartitionName=main Nodes=$host Default=YES PriorityTier=1 GraceTime=60 PreemptMode=REQUEUE
PartitionName=urgent Nodes=$host PriorityTier=10 PreemptMode=OFF
CONF

export SLURM_CONF=$folder/slurm.conf
slurmctld -c
slurmd -N "$host" -c
for _ in $(seq 60); do
    if sinfo -h -o %T 2> /dev/null | grep -q idle; then
        exit 0
    fi
    sleep 1
done
echo "error: Slurm must have an idle node within a minute, got: $(sinfo 2>&1)" >&2
tail -n 20 "$folder"/slurm*.log >&2
exit 1
