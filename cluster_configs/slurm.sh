#!/bin/bash
# A run on nodes of a Slurm cluster: `ray symmetric-run` begins Ray on every node of the job, runs the command on the
# first, and ends Ray. All nodes need the same environment with east-ray, the same home and the folder of run_dir.
#
#     sbatch --nodes=2 cluster_configs/slurm.sh run jobs/paper_gsm8k.yaml run_dir=/shared/runs/gsm8k \
#         engines.num_gpus_per_engine=1 engines.max_engines=16 training.num_gpus_per_worker=1 training.num_workers=16
#
# from a clone, with the environment activated. Any verb of east-ray that works in a cluster may take the place of `run`.
# When the job's time is over, or it is preempted, the same command goes on where it stopped.
#
# On every node Ray listens at all of its addresses, on port 6379 of the first and on ports that it chooses; only the
# dashboard is at loopback. Ray's services ask for the token in ~/.ray/auth_token, which is made here if there is none; see
# that no other network reaches the nodes. They are not shared with other jobs (`--exclusive`), because `ray symmetric-run`
# ends all that its user has of Ray on a node.
#SBATCH --job-name=east-ray
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --cpus-per-task=64
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --output=east-ray-%j.log
set -euo pipefail

export RAY_AUTH_MODE=token
(umask 077 && ray get-auth-token --generate >/dev/null)

# Nodes that load Python from a shared file system take longer than the half minute that Ray would wait.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600

read -r first < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    ray symmetric-run --address "$first:6379" --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus="$SLURM_CPUS_PER_TASK" -- \
    python -m east_ray "$@" "cluster.address=$first:6379"
