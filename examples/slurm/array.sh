#!/usr/bin/env bash
# A job of slices, shared out among the tasks of an array; all of them fill one folder.
#
#   MODEL=DCGAN-64.onnx OUT=/shared/slices COUNT=1000000 sbatch examples/slurm/array.sh
#
# A task that failed or ran out of time is submitted again by its number (sbatch --array=3 …) and
# makes what is missing of its own shards; the whole array submitted again, what is missing of all.
#
#SBATCH --job-name=fastmrigan
#SBATCH --array=0-15
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=4G
#SBATCH --time=04:00:00
#SBATCH --output=fastmrigan-%A-%a.log
#
# Two minutes before its time is up a task is told to stop, and keeps every finished shard.
#SBATCH --signal=B:TERM@120
#
# Tasks whose bytes could differ are refused: name nodes with one and the same processor.
##SBATCH --constraint=icelake
set -euo pipefail

MODEL=${MODEL:-DCGAN-64.onnx}
OUT=${OUT:-slices} # on a file system that every node sees, with locks (NFSv4 has them)
COUNT=${COUNT:-1000000}
SEED=${SEED:-0}
SHARD_SIZE=${SHARD_SIZE:-256}
TASKS=${TASKS:-16} # of --array; stated, since a task that is submitted alone sees an array of one

if ((SLURM_ARRAY_TASK_ID >= TASKS)); then
  echo "task $SLURM_ARRAY_TASK_ID: TASKS is $TASKS; raise it to the size of --array" >&2
  exit 2
fi
shards=$(((COUNT + SHARD_SIZE - 1) / SHARD_SIZE))
first=$((SLURM_ARRAY_TASK_ID * shards / TASKS))
end=$(((SLURM_ARRAY_TASK_ID + 1) * shards / TASKS))
if ((first == end)); then
  echo "task $SLURM_ARRAY_TASK_ID: nothing to do, $TASKS tasks share $shards shards"
  exit 0
fi

# exec: the signal reaches it, and its exit code is the task's
exec fastmrigan synth "$MODEL" --out "$OUT" --count "$COUNT" --seed "$SEED" \
  --shard-size "$SHARD_SIZE" --shard-range "$first:$end" --threads "$SLURM_CPUS_PER_TASK"
