"""Find where the visual prompt goes, train with it there, answer with it.

    python run.py with dvp_search_bert_vqa data_root=./datasets per_gpu_batchsize=256                    # find K
    python run.py with dvp_adaption_bert_vqa data_root=./datasets per_gpu_batchsize=256 insert_layer=K   # train
    ... insert_layer=K test_only=True load_path=<checkpoint>                                             # answer
    python run.py help                                                                                   # what else
"""

import os
import sys

from sacred.observers import FileStorageObserver

from dvp.config import check, check_command_line, ex
from dvp.errors import UserError


@ex.main
def main(_config):
    """Search, train or test, as configured."""
    import pytorch_lightning as pl

    from dvp.build import build_data, build_module, build_trainer

    config = check(_config)
    pl.seed_everything(config["seed"], workers=True)
    data = build_data(config)
    module = build_module(config, data)
    trainer = build_trainer(config, module.monitor)
    if config["test_only"]:
        trainer.test(module, datamodule=data)
        return
    print(f"{module.monitor} picks the checkpoint.")
    trainer.fit(module, datamodule=data, ckpt_path=config["resume_from"])


@ex.command(unobserved=True)
def convert(datasets, raw_root, data_root, seed, min_answer_count, rest_val_images, allow_missing_images):
    """Turn official raw files into Arrow files."""
    from dvp.prepare import convert as prepare

    options = {"seed": seed, "min_answer_count": min_answer_count, "rest_val_images": rest_val_images}
    prepare(task_name(datasets), raw_root, data_root, allow_missing_images=allow_missing_images, **options)


if __name__ == "__main__":
    try:
        updates = check_command_line(sys.argv)
        if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
            ex.observers.append(FileStorageObserver(os.path.join(updates.get("log_dir", "./result"), "sacred")))
        ex.run_commandline()
    except UserError as error:
        sys.exit(f"error: {error}")
