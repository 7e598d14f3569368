#!/bin/bash
# A study as a SLURM job array: every task is one worker, which takes trials until none is left.
#
#   export QSTUDY_STORAGE=postgresql://user:password@host/name    # one database for all tasks; see below for SQLite
#   qstudy sweep sweeps/digits.yaml --prepare_only                # plan the study, make corpus and float baseline once
#   sbatch --array=0-15 sweeps/slurm.sh digits                    # 16 workers; later `sbatch` again adds more
#   qstudy status digits                                          # from anywhere
#
# Submit from the folder where the study was prepared: `studies/`, `cache/` and `corpora/` lie there, on a file system
# that all nodes share, with locks (NFS 4; Lustre mounted with `flock`); logs go there, too (slurm-JOB_TASK.out). A task
# that is preempted, requeued or out of time puts its trial back with a checkpoint; one whose node dies is missed after a
# minute, and another task goes on. Without QSTUDY_STORAGE the database is SQLite, which several machines at once damage,
# even on a file system that they share: it serves if all tasks run on one node (sbatch --nodelist=NODE), and nothing
# elsewhere meanwhile. More options of `qstudy worker` follow the name.
#
#SBATCH --job-name=qstudy
#SBATCH --cpus-per-task=4
##SBATCH --gres=gpu:1          # a GPU per worker: remove the first #
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120    # two minutes before the end: a step, a checkpoint, and the trial is back in the queue
#SBATCH --requeue
#SBATCH --open-mode=append

set -euo pipefail
study=${1:?"give the study's name: sbatch --array=0-15 sweeps/slurm.sh NAME"}
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1} NUMBA_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
echo "Worker ${SLURM_ARRAY_TASK_ID:-0} of the study $study on $(hostname), $OMP_NUM_THREADS threads"
exec qstudy worker --study "$study" "${@:2}"    # exec: the signals of SLURM reach the worker itself
