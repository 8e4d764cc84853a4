#!/bin/bash
# One share a task of a Slurm array, merged by a job that waits for all: sbatch docs/howto/slurm.sh
#SBATCH --job-name=fastconv
#SBATCH --array=0-15
#SBATCH --cpus-per-task=8
set -euo pipefail

model=torchvision:resnet50 data=/data/photos out=$PWD/run.h5
shares=${SLURM_ARRAY_TASK_COUNT:?start it with sbatch}
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK # equal everywhere: bits depend on it

if [ "$SLURM_ARRAY_TASK_ID" = 0 ]; then # runs once every share is done
  sbatch --dependency="afterok:$SLURM_ARRAY_JOB_ID" --wrap \
    "fastconv merge $out.shard-*.h5 -o $out && rm $out.shard-*.h5"
fi
# a share that was killed goes on where it was when the array is submitted again
fastconv extract "$model" "$data" --shard "$SLURM_ARRAY_TASK_ID/$shares" \
  --num-workers 4 -o "$out.shard-$SLURM_ARRAY_TASK_ID.h5"
