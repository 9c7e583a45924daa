#!/usr/bin/env bash
# Runs a command beside a Slurm of its own on this machine, one node with two partitions: Debian's packages, as root.
#   tests/with_slurm.sh FOLDER COMMAND...
# It ends with the command's exit code, or with 69 where no Slurm can be installed or started here.
# Its settings, state and logs lie in FOLDER, its ports are free ones, so that another Slurm may run here; at the end,
# whatever becomes of the command, nothing that was started here is left. A job in the partition `urgent` takes the
# place of one in `main`, which gets 60 seconds to save and is queued again.
set -euo pipefail
folder=$(realpath -m "$1")
shift
host=$(hostname -s)
export SLURM_CONF=$folder/slurm.conf
started_munge=
unavailable=69 # EX_UNAVAILABLE of sysexits.h

if ! command -v slurmctld > /dev/null || ! command -v munged > /dev/null; then
    mkdir -p "$folder"
    echo "installing Slurm and munge"
    { apt-get update -qq && timeout 600 apt-get install -y -qq slurm-wlm munge; } > "$folder/install.log" 2>&1 ||
        { tail -n 20 "$folder/install.log" >&2; exit $unavailable; }
fi

stop() {
    for name in slurmctld slurmd; do # jobs first, while there is someone to end them
        if [ $name = slurmctld ] && [ -s "$folder/slurmctld.pid" ]; then
            scancel --me --signal=KILL --full 2> /dev/null || true
            scancel --me 2> /dev/null || true
            for _ in $(seq 100); do
                [ -n "$(squeue --me --noheader 2> /dev/null)" ] || break
                sleep 0.1
            done
        fi
        end "$folder/$name.pid"
    done
    if [ -n "$started_munge" ]; then
        end /run/munge/munged.pid
    fi
}

end() { # the process that a file names, waited for
    [ -s "$1" ] || return 0
    kill "$(cat "$1")" 2> /dev/null || true
    for _ in $(seq 100); do
        kill -0 "$(cat "$1" 2> /dev/null)" 2> /dev/null || break
        sleep 0.1
    done
    rm -f "$1"
}

stop # what an earlier call left, that was killed
rm -rf "$folder"
mkdir -p "$folder/state" "$folder/spool"
trap stop EXIT

if ! munge -n > /dev/null 2>&1; then
    mkdir -p /run/munge /var/log/munge /var/lib/munge /etc/munge
    [ -s /etc/munge/munge.key ] || dd if=/dev/urandom of=/etc/munge/munge.key bs=1 count=1024 status=none
    chown -R munge: /run/munge /var/log/munge /var/lib/munge /etc/munge
    chmod 400 /etc/munge/munge.key
    runuser -u munge -- /usr/sbin/munged || exit $unavailable
    started_munge=yes
fi

read -r control daemon < <(python3 -c '
import socket
held = [socket.socket() for _ in range(2)]
for each in held:
    each.bind(("", 0))
print(*(each.getsockname()[1] for each in held))')
cat > "$SLURM_CONF" << CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$control
SlurmdPort=$daemon
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
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=30
MinJobAge=3600
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES PriorityTier=1 GraceTime=60 PreemptMode=REQUEUE
PartitionName=urgent Nodes=$host PriorityTier=10 PreemptMode=OFF
CONF

slurmctld -c && slurmd -N "$host" -c || exit $unavailable
for _ in $(seq 240); do
    if sinfo -h -o %T 2> /dev/null | grep -q idle; then
        "$@"
        exit
    fi
    sleep 0.25
done
echo "error: Slurm must have an idle node within a minute, got: $(sinfo 2>&1)" >&2
tail -n 20 "$folder"/slurm*.log >&2
exit $unavailable
