"""Find where the visual prompt goes, train with it there, answer with it.

python run.py with dvp_search_bert_vqa data_root=./datasets per_gpu_batchsize=256                    # find K
python run.py with dvp_adaption_bert_vqa data_root=./datasets per_gpu_batchsize=256 insert_layer=K   # train
... insert_layer=K test_only=True load_path=<checkpoint>                                             # answer
python run.py help                                                                                   # what else
"""

from dvp.commands import ex, start

__all__ = ["ex"]

if __name__ == "__main__":
    start()
