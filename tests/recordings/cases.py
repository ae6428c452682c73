"""Tiny runs whose results are recorded; nearly every pair of their settings is in one of them."""

BASE = (
    *("device=cpu", "progress=false", "rounds=2", "num_clients=3", "batch_size=8", "dataset.max_train=130"),
    *("dataset.max_test=60", "auxiliary.align_epochs=4", "auxiliary.max_dataset_size=24"),
    "auxiliary.align_batch_size=10",
)
"""Settings of each run that is not resumed; what a case names comes after. 130 images give ragged batches."""

RESUMED = "; resume=RUN rounds=3"
STOCHASTIC = " ".join(
    f"quant.{each}.rounding=stochastic" for each in ("smashed", "cut_gradient", "weights.up", "weights.down")
)

_OF_ALGORITHMS = {
    "fed_avg": {
        "exact, gRPC": "transport=grpc engine=sequential weight_bits=8",
        "int8, momentum": "quant=int8 client.stateless=true optimizer=sgd optimizer.momentum=0.9",
        "int4, shards": "quant=int4 engine=vectorized client.stateless=true distribution=shards"
        " distribution.classes_per_client=4",
        "int2, resumed": "quant=int2 engine=vectorized client.stateless=true scheduler=step"
        f" scheduler.step_size=1{RESUMED}",
        "thrifty, qat, resumed": "quant=thrifty qat=true weight_bits=8 client.stateless=true"
        f" cohort_size=2{RESUMED}",
        "fp16, two-bit weights, wifi": "quant=fp16 weight_bits=2 cohort_size=2 network=wifi",
        "bf16, local test": "quant=bf16 precision=bf16 engine=sequential dataset.local_test_fraction=0.2"
        " eval_interval=2",
        "top-k up": "quant.weights.up=topk quant.weights.up.zstd=3 quant.weights.down=int2_block"
        " cohort_size=2 rounds=3",
    },
    "splitfed_v1": {
        "exact, dirichlet": "engine=vectorized client.stateless=true cohort_size=2 distribution=dirichlet"
        " scheduler=cosine",
        "int8, two optimizers": "quant=int8 engine=vectorized client.stateless=true client_optimizer=adamw"
        " server_optimizer=sgd",
        "int4, another cut": "quant=int4 engine=vectorized client.stateless=true model.cut=pool seed=7",
        "int2, qat, gRPC": "quant=int2 transport=grpc qat=true weight_bits=2 num_clients=2",
        "int2, resumed": f"quant=int2 engine=sequential weight_bits=8 cohort_size=2{RESUMED}",
        "thrifty, satellite": "quant=thrifty engine=sequential client.stateless=true cohort_size=2"
        " network=satellite network.cost_per_mb=0.1",
        "fp16, quantity skew": "quant=fp16 engine=vectorized distribution=quantity_skew local_epochs=2",
        "sign, top-k, fp8": "quant.smashed=sign quant.cut_gradient=topk quant.weights=fp8",
    },
    "splitfed_v2": {
        "exact, lte": "network=lte",
        "exact, augmented": "client.stateless=true dataset.flip=true dataset.crop_padding=1",
        "int8, pathological": "quant=int8 weight_bits=2 distribution=pathological",
        "int4, gRPC, resumed": "quant=int4 transport=grpc engine=sequential weight_bits=2"
        f" client.stateless=true cohort_size=2{RESUMED}",
        "int4, qat": "quant=int4 qat=true dataset.validation=40",
        "int2, stochastic": f"quant=int2 engine=sequential cohort_size=2 {STOCHASTIC}",
        "thrifty": "quant=thrifty engine=sequential client.stateless=true cohort_size=2",
        "fp16, qat": "quant=fp16 qat=true weight_bits=8 cohort_size=2 quant.smashed=randtopk",
    },
    "cse_fsl": {
        "exact, mlp": "engine=vectorized auxiliary=mlp algorithm.server_update_interval=2",
        "int8, batch normalisation": "quant=int8 engine=vectorized model=resnet20 model.cut=layer1"
        " auxiliary=linear dataset.max_train=50",
        "int4, from decoded": "quant=int4 weight_bits=8 client.stateless=true cohort_size=2"
        " quant.continue_from_decoded=true",
        "int2, epochs": "quant=int2 engine=sequential client.stateless=true cohort_size=2 scheduler=cosine"
        " local_epochs=2",
        "thrifty, derived": "quant=thrifty weight_bits=2 auxiliary=derived",
        "fp16, resumed": f"quant=fp16 engine=vectorized{RESUMED}",
        "fp16, qat, gRPC": "quant=fp16 transport=grpc qat=true client.stateless=true cohort_size=2",
        "int8, qat, trained start": "rounds=2; algorithm=cse_fsl run=RUN quant=int8 qat=true",
    },
    "fsl_sage": {
        "exact, qat, resumed": f"qat=true weight_bits=2 cohort_size=2 algorithm.align_interval=2{RESUMED}",
        "int8, gradient error": "quant=int8 engine=sequential client.stateless=true cohort_size=2"
        " algorithm.align_interval=1 measure_gradient_error=true dataset.local_test_fraction=0.2"
        " distribution=feature_shift",
        "int8, qat, gRPC, resumed": f"quant=int8 transport=grpc qat=true weight_bits=8{RESUMED}",
        "int4, warm start": "quant=int4 client.stateless=true algorithm.warm_start=1"
        " algorithm.align_interval=1",
        "int2, linear regression": "quant=int2 engine=vectorized client.stateless=true"
        " estimator=linear_regression algorithm.align_interval=2",
        "thrifty, mlp regression": "quant=thrifty estimator=mlp_regression algorithm.align_interval=1",
        "fp16, lte": "quant=fp16 cohort_size=2 network=lte algorithm.align_interval=2",
        "allocated bits, stopped early": "quant=int8 quant.smashed.bits=auto quant.smashed.budget=2"
        " auxiliary.align_tolerance=0 comm_threshold_mb=0.05 rounds=3",
    },
}
CASES = {
    f"{algorithm}, {name}": f"algorithm={algorithm} {commands}".split("; ")
    for algorithm, cases in _OF_ALGORITHMS.items()
    for name, commands in cases.items()
}
"""Command lines by name, one after the other; `RUN` stands for the directory of the run before."""

IN_EVERY_RUN = (
    "fed_avg, thrifty, qat, resumed",
    "splitfed_v1, int8, two optimizers",
    "splitfed_v1, int2, qat, gRPC",
    "splitfed_v2, int2, stochastic",
    "cse_fsl, fp16, resumed",
    "cse_fsl, int8, qat, trained start",
    "fsl_sage, int8, gradient error",
    "fsl_sage, int4, warm start",
)
"""Names of cases that together show each algorithm, codec, engine and transport."""
