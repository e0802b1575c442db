"""Four runs on a mesh of devices, for `test_mesh.py`: a process of its own, since devices are counted when JAX starts.

python tests/on_a_mesh.py OUT LANES BATCH [--of I N PORT] [--folder F] [--stop STEPS] [--wait_after EPOCH] [--names a,b]
"""

import argparse
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

parser = argparse.ArgumentParser()
parser.add_argument("out", type=pathlib.Path)
parser.add_argument("lanes", type=int)
parser.add_argument("batch", type=int)
parser.add_argument("--of", nargs=3, type=int)
parser.add_argument("--folder")
parser.add_argument("--stop", type=int, help="whether the last process is asked to stop after so many steps")
parser.add_argument("--names", default="ceag,streamed,bifp,qat")
parser.add_argument("--wait_after", type=int, help="this epoch, for somebody who ends a process meanwhile")

if __name__ == "__main__":
    flags = parser.parse_args()
    if flags.of:
        process, processes, port = flags.of
        jax.distributed.initialize(f"127.0.0.1:{port}", processes, process)

    from jaxfair import bilevel, constraints, models, quant, sparsity, train
    from jaxfair.typing import Batch

    G, C, WIDTH = 5, 3, 6
    rng = np.random.default_rng(0)
    N = 256
    x = rng.normal(size=(N, WIDTH)).astype(np.float32)
    y = (x @ rng.normal(size=(WIDTH, C)) + rng.normal(size=(N, C))).argmax(1).astype(np.int32)
    weight = rng.choice(np.float32([0.5, 1.0]), N)
    split = Batch(x, y, rng.integers(0, G, N).astype(np.int32), np.arange(N, dtype=np.int32), weight)
    model = models.mlp(C, hidden=(8,))
    keys = jax.random.split(jax.random.key(1), 4)
    params, state = jax.vmap(lambda key: model.init(key, jnp.zeros((1, WIDTH))))(keys)
    right = constraints.Outcomes(jnp.ones(N), jnp.zeros(N))
    rising = sparsity.polynomial(0.5, begin=2, end=8, every=2)
    sgd = lambda: optax.sgd(0.1, momentum=0.9)

    def bounded(make, apply):
        return make(apply, num_groups=G, tolerance=0.05, memory=constraints.example_memory(G))

    ceag_problem = bounded(constraints.excess_accuracy_gap, model.apply)
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

    mesh = train.mesh(flags.lanes, flags.batch)
    found, seen = {}, 0

    def show(done, total, new):
        global seen
        seen = done
        if new and new[0]["epoch"] == flags.wait_after:
            time.sleep(5)

    for name in flags.names.split(","):
        solver, start, meter, plan = locals()[name]()
        if not plan.mapped and flags.lanes > 1:
            continue
        last = flags.of is None or flags.of[0] == flags.of[1] - 1
        state_ = train.fit(
            solver, start, split, keys=keys, epochs=3, batch_size=16, num_steps=16, meter=meter, plan=plan,
            average_from=20, average_decay=0.9, mesh=mesh, show=show, save_every=1,
            record=None if flags.folder is None else f"{flags.folder}/{name}.jsonl",
            checkpoints=None if flags.folder is None else f"{flags.folder}/{name}",
            stop=lambda last=last: flags.stop is not None and last and seen >= flags.stop,
        )  # fmt: skip
        if name == "ceag":  # memories lie divided
            parts = {
                tuple(leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(state_.solver.carry)
                if leaf.shape == (4, N)
            }  # fmt: skip
            assert parts == {(4 // flags.lanes, N // flags.batch)}, parts
        leaves = jax.tree.leaves(train.on_host(state_))
        found |= {f"{name}/{i:03}": leaf for i, leaf in enumerate(leaves)}
        print(name, len(leaves), flush=True)  # noqa: T201
    if flags.of is None or flags.of[0] == 0:
        np.savez(flags.out, **found)
