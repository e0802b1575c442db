"""Four runs on a mesh of devices, for `test_mesh.py`: a process of its own, since devices are counted when JAX starts.

python tests/on_a_mesh.py OUT 2x2 1x4 ... [--of I N PORT] [--folder F] [--stop F] [--wait_after EPOCH] [--fails]
                                          [--names a,b]
"""

import argparse
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

parser = argparse.ArgumentParser()
parser.add_argument("out", type=pathlib.Path)
parser.add_argument("meshes", nargs="+", help="lanes x batch")
parser.add_argument("--of", nargs=3, type=int)
parser.add_argument("--folder")
parser.add_argument("--stop", help="a folder: at the end one process is asked to stop a run there, and all do")
parser.add_argument("--names", default="ceag,streamed,bifp,qat")
parser.add_argument("--fails", action="store_true", help="the last process has a bug, which shows after an epoch")
parser.add_argument("--wait_after", type=int, help="this epoch, for somebody who ends a process meanwhile")

if __name__ == "__main__":
    flags = parser.parse_args()
    if flags.of:
        process, processes, port = flags.of
        jax.distributed.initialize(f"127.0.0.1:{port}", processes, process)

    from jaxfair import bilevel, constraints, models, quant, sparsity, study, train
    from jaxfair.typing import Batch

    G, C, WIDTH, LANES = 5, 3, 6, 2
    rng = np.random.default_rng(0)
    N = 256
    x = rng.normal(size=(N, WIDTH)).astype(np.float32)
    y = (x @ rng.normal(size=(WIDTH, C)) + rng.normal(size=(N, C))).argmax(1).astype(np.int32)
    weight = rng.choice(np.float32([0.5, 1.0]), N)
    split = Batch(x, y, rng.integers(0, G, N).astype(np.int32), np.arange(N, dtype=np.int32), weight)
    model = models.mlp(C, hidden=(8,))
    keys = jax.random.split(jax.random.key(1), LANES)
    params, state = jax.vmap(lambda key: model.init(key, jnp.zeros((1, WIDTH))))(keys)
    right = constraints.Outcomes(jnp.ones(N), jnp.zeros(N))
    rising = sparsity.polynomial(0.5, begin=2, end=8, every=2)
    sgd = lambda: optax.sgd(0.1, momentum=0.9)

    ceag_problem = constraints.excess_accuracy_gap(
        model.apply, num_groups=G, tolerance=0.05, memory=constraints.example_memory(G)
    )
    fair_problem = constraints.accuracy_parity(model.apply, num_groups=G, tolerance=0.05)

    def begun(solver, problem):
        carry = problem.init(jax.tree.map(lambda a: a[0], state), right, split)
        return jax.vmap(lambda p: solver.init(p, carry))(params)

    def ceag():
        primal = sparsity.prune(sgd(), rising, prunable=model.prunable)
        solver = constraints.solver(ceag_problem, primal=primal, dual=optax.sgd(0.5))
        return solver, begun(solver, ceag_problem), train.group_meter(G), train.Plan()

    def streamed():
        solver, start, meter, _ = ceag()
        return solver, start, meter, train.Plan(mapped=False, streamed=True, steps_per_call=4)

    def bifp():
        solver = bilevel.bifp(
            fair_problem, sparsity.constant(0.5), prunable=model.prunable, weights=sgd(), masks=optax.sgd(0.5),
            dual=optax.sgd(0.1), gamma=10.0, weight_decay=0.01, renew=2,
        )  # fmt: skip
        return solver, begun(solver, fair_problem), None, train.Plan()

    def qat():
        solver = train.descent(model.apply, quant.quantized(sgd(), bits=3), at=quant.quantized_params)
        return solver, jax.vmap(lambda p: solver.init(p))(params), train.group_meter(G), train.Plan()

    found: dict[str, dict[str, np.ndarray]] = {}

    def show(done, total, new):
        if new and new[0]["epoch"] == flags.wait_after:
            time.sleep(5)
        if new and flags.fails and flags.of[0]:
            raise RuntimeError("a bug")

    def fitted(name, mesh, folder=None, stop=lambda: False):
        solver, start, meter, plan = MADE[name]()
        return train.fit(
            solver, start, split, keys=keys, epochs=2, batch_size=16, num_steps=16, meter=meter, plan=plan,
            average_from=20, average_decay=0.9, mesh=mesh, show=show, save_every=1, stop=stop,
            record=None if folder is None else f"{folder}/{name}.jsonl",
            checkpoints=None if folder is None else f"{folder}/{name}",
        )  # fmt: skip

    MADE = {"ceag": ceag, "streamed": streamed, "bifp": bifp, "qat": qat}
    for called in flags.meshes:
        rows, columns = map(int, called.split("x"))
        found[called] = {}
        for name in flags.names.split(","):
            if name == "streamed" and rows > 1:
                continue  # lanes run one after another
            state_ = fitted(name, train.mesh(rows, columns), flags.folder)
            if name == "ceag":  # memories lie divided
                memories = [leaf for leaf in jax.tree.leaves(state_.solver.carry) if leaf.shape == (LANES, N)]
                assert memories
                for leaf in memories:
                    assert leaf.sharding.shard_shape(leaf.shape) == (LANES // rows, N // columns)
            leaves = jax.tree.leaves(train.on_host(state_))
            found[called] |= {f"{name}/{i:03}": leaf for i, leaf in enumerate(leaves)}
    first = flags.of is None or flags.of[0] == 0
    if first:
        for called, leaves in found.items():
            np.savez(flags.out / f"{called}.npz", **leaves)
    if flags.stop:
        try:
            # Only the last process is asked to.
            fitted("ceag", train.mesh(rows, columns), flags.stop, stop=lambda: not first)
        except study.Stopped:
            sys.stderr.write("stopped\n")
