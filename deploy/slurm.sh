#!/usr/bin/env bash
# A Ray cluster of the machines that SLURM gives, and one command of TumorTrace on it. All is on a shared file system.
#   sbatch --nodes=4 deploy/slurm.sh scan RUN SLIDES -o OUT
# Where time runs out, or a machine is lost with the head: the same sbatch goes on where it stopped.
#SBATCH --job-name=tumortrace
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail
[ "$#" -gt 0 ] || { echo "usage: sbatch --nodes=N deploy/slurm.sh VERB ARGUMENTS" >&2; exit 2; }
export RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n') # no other user of the machines has a say in this cluster
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${hosts[0]}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | cut -d' ' -f1):6379

gpus=()
[ -z "${SLURM_GPUS_ON_NODE:-}" ] || gpus=(--num-gpus="$SLURM_GPUS_ON_NODE")
member=(ray start --block --num-cpus="$SLURM_CPUS_PER_TASK" "${gpus[@]}")
srun --nodes=1 --ntasks=1 --overlap --nodelist="$head" "${member[@]}" --head --port=6379 --include-dashboard=false &
until ray status --address="$address" >/dev/null 2>&1; do sleep 2; done
if [ "${#hosts[@]}" -gt 1 ]; then
  others=$(IFS=,; echo "${hosts[*]:1}")
  srun --nodes=$((${#hosts[@]} - 1)) --ntasks=$((${#hosts[@]} - 1)) --overlap --nodelist="$others" \
    "${member[@]}" --address="$address" &
  until [ "$(ray status --address="$address" | grep -c '^ 1 node_')" -ge "${#hosts[@]}" ]; do sleep 2; done
fi

tumortrace "$@" --cluster "$address" &
work=$!
trap 'kill -TERM "$work"' TERM # SLURM's, before the time is up: what is unfinished is put in order
code=0
wait "$work" || code=$?
trap - TERM
wait "$work" 2>/dev/null || true
exit "$code" # SLURM ends what still runs
