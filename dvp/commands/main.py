"""Search, train or test: what `python run.py with ...` does without a verb."""

from dvp.config import check, ex


@ex.main
def main(_config, _run):
    """Search, train or test, as configured."""
    config = check(_config)

    import pytorch_lightning as pl  # here, so that help and mistakes answer at once

    from dvp.build import build
    from dvp.runs.devices import prepare_devices
    from dvp.runs.trainer import build_trainer, start_from

    prepare_devices(config["num_gpus"])
    pl.seed_everything(config["seed"], workers=True)
    data, module = build(config)
    trainer = build_trainer(config, module.monitor)
    for record in _run.observers:
        record.began = True
    if config["test_only"]:
        trainer.test(module, datamodule=data)
    else:
        print(f"{module.monitor} picks the checkpoint.")
        trainer.fit(module, datamodule=data, ckpt_path=start_from(trainer, config))
