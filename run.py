"""Find where the visual prompt goes, train with it there, answer with it.

python run.py with dvp_search_bert_vqa data_root=./datasets per_gpu_batchsize=256                    # find K
python run.py with dvp_adaption_bert_vqa data_root=./datasets per_gpu_batchsize=256 insert_layer=K   # train
... insert_layer=K test_only=True load_path=<checkpoint>                                             # answer
python run.py help                                                                                   # what else
"""

import warnings

warnings.filterwarnings("ignore", "pkg_resources is deprecated")  # Sacred imports it

from dvp import commands  # noqa: E402, F401  registers the other verbs
from dvp.config import check, ex  # noqa: E402


@ex.automain
def main(_config):
    """Search, train or test, as configured."""
    config = check(_config)

    import pytorch_lightning as pl  # here, so that help and mistakes answer at once

    from dvp.build import build, build_trainer, prepare_devices

    prepare_devices(config["num_gpus"])
    pl.seed_everything(config["seed"], workers=True)
    data, module = build(config)
    trainer = build_trainer(config, module.monitor)
    if config["test_only"]:
        trainer.test(module, datamodule=data)
    else:
        print(f"{module.monitor} picks the checkpoint.")
        trainer.fit(module, datamodule=data, ckpt_path=config["resume_from"])
