"""Every setting with its default and its meaning, which `print_config` and `help <setting>` show."""

import inspect
import re
from pathlib import Path

from sacred import SETTINGS

from dvp.config.command_line import CommandLine

SETTINGS.CAPTURE_MODE = "sys"  # the default's helper processes would wait for the ranks that Lightning starts
ex = CommandLine("DVP", base_dir=str(Path(__file__).parents[1]), save_git_info=False)


@ex.config
def defaults():
    # The experiment
    exp_name = "DVP"  # names the folder of the run under log_dir
    seed = 0  # of weights, order, dropout and arms; of convert: of the images held out
    datasets = ["vqa"]  # vqa, gqa, snli_ve, custom (your own) or scienceqa; a name or a list of one
    as_published = False  # True: the published code's arithmetic and protocol, quirks included
    search_stage = False  # True: search K; False: train at insert_layer
    test_only = False  # True: evaluate load_path and, for VQA and GQA, write its predictions
    test_split = "test"  # VQA: test (all questions, as the server wants) or test-dev

    # Where things lie
    data_root = ""  # folder of the Arrow files, see DATA.md
    log_dir = "./result"  # runs, searches, submissions
    logger = None  # wandb, mlflow or trackio: where metrics go beside metrics.csv and TensorBoard
    report = True  # a training ends with report.html: curves, answers, heat maps; a search counts what it has cost
    load_path = ""  # checkpoint to test or to start from, of a search too; the published code's tells most settings
    start_from = None  # search: from the newest search's K and weights, its last.ckpt; None: anew, or load_path
    resume_from = None  # checkpoint to go on from, exactly; auto (or last): this experiment's newest, if there is one
    save_every = "10 minutes"  # between checkpoints to go on from: minutes, or as a whole number updates

    # Image
    clip_model = "ViT-B/16"  # ViT-B/16, ViT-B/32, ViT-L/14, an archive of OpenAI's, or a folder of CLIP, SigLIP or DINO
    image_size = 224  # pixels; where it is left out, what the folder of clip_model says
    turn_pictures = False  # True: pictures whose EXIF says that they lie on their side are turned upright
    image_tokens = "auto"  # live: always; cache: once, before training; auto: once, meanwhile, if faster; zero: blind
    image_tokens_on = "host"  # host: fetched batch by batch; device: all held there (VQAv2 train and val: 37 GB)

    # Text
    language_model = "BERT"  # its family: BERT, ROBERTA, T5, LLAMA, QWEN3 ...; must be what the tokenizer folder holds
    tokenizer = "bert-base-uncased"  # tokenizer and weights: a Hugging Face folder or hub name
    max_text_len = 16  # tokens, as_published not of LLaMA; ScienceQA: positions, with those of image and prefix
    bucket_by_length = False  # True: texts of like length share a batch, for less padding; ScienceQA: always
    prompt_format = "QCM-ALE"  # ScienceQA: what is read and written, see dvp/scienceqa/text.py
    use_caption = False  # ScienceQA: True puts the image's caption after the hint
    answer_by = "generate"  # ScienceQA's test: generate a text and read it, or take the letter of largest likelihood
    max_new_tokens = 64  # ScienceQA: tokens generated at most

    # Model
    insert_layer = 0  # K, from 0; auto: what the newest search found; [1,2]: a prompt anew at each of these
    prompt_tokens = 1  # that the picture becomes; as published, 1
    use_adapter = False  # True: the language model stays frozen but for adapters and norms; or lora, dora, ia3, frozen
    adapter_rank = 8  # lora, dora: their inner width
    adapter_targets = "auto"  # lora, dora, ia3: layers by the ends of their names, as in q_proj,v_proj, or all-linear
    lora_alpha = 8  # lora, dora: what they learn counts lora_alpha / adapter_rank times
    lora_dropout = 0.0  # lora, dora: dropout on what goes into them
    num_heads = 12  # heads of the compressor
    drop_rate = 0.1  # dropout on the compressor's attention map

    # Search
    kab = "published"  # the rule: published (a policy moved by sampled scores) or mean (scores all, ends when decided)
    search_sample = 5  # kab=published: arms scored after each update, or all: every arm once, about as cheap
    search_warmup_steps = 0  # updates before the first scores count

    # sweep: a training at every K
    layers = "all"  # of these layers, as in layers=1,2; all: of every one
    seeds = 0  # with each of these, as in seeds=0,1,2
    metric = "score"  # score: on the validation split at the end; speed: updates until it passes `level`
    level = None  # metric=speed: the score in percent that counts as reached

    # compare: runs beside each other
    runs = ""  # their folders, as in runs=result/a_seed0/version_0,result/b_seed0; the latter: all that are in it

    # Optimiser
    optim_type = "adamw"  # adamw, adam or sgd
    learning_rate = 1e-4  # at its peak, after the warm-up; ScienceQA: for 256 rows per update, less with fewer
    lr_mult = 1  # the answer head's rate, in learning rates
    weight_decay = 0.01  # of all trained weights but biases, norms and scales
    decay_power = 1  # power of the polynomial decay, or "cosine" or "constant"
    end_lr = 0  # the learning rate that a polynomial decay ends at
    max_epoch = 10  # counts when max_steps is None
    max_steps = 2500  # optimiser updates, or None
    warmup_steps = 0.1  # a count of optimiser updates, or as a float their share
    val_check_interval = 1.0  # share of an epoch between validations

    # Devices
    num_gpus = 1  # per node; 0: the CPU
    num_nodes = 1  # machines, each with num_gpus
    cpu_processes = 1  # with num_gpus=0: gloo processes, to try what several devices do
    strategy = "auto"  # auto, ddp, fsdp (pieces of frozen weights on each device), deepspeed_stage_2, ...
    precision = "auto"  # 16, 32, bf16 or auto: 32 on a CPU, bf16 where the GPU has it; else 16, or 32 for T5
    backbone_dtype = "auto"  # of frozen weights: float32, bfloat16, or auto: bfloat16 for decoders in 16 bit
    quantize = None  # 8bit or 4bit: a frozen language model through bitsandbytes
    gradient_checkpointing = False  # True: layers are computed again in the backward pass; less memory, more time
    compile = False  # True: torch.compile the language model's layers and the image encoder
    num_workers = 8  # processes that load data, per device
    batch_size = 256  # rows per optimiser update, all devices and accumulation together
    per_gpu_batchsize = 0  # rows per device and pass; you choose what fits
    fast_dev_run = False  # True: one batch of everything

    # predict: answers to questions of your own
    image = ""  # the picture's file; ScienceQA also asks without one
    question = ""  # what is asked about it
    choices = ""  # ScienceQA: what is chosen from, separated by |, as in choices="red|blue"
    hint = ""  # ScienceQA: the text that comes with the question
    ask_from = ""  # instead: a JSONL file, {"image": ..., "question": ...} per line, its paths seen from its folder
    to = ""  # with ask_from: the JSONL file that the answers go to, where an interrupted run goes on; export: a folder
    top = 5  # answers shown
    json = False  # True: the answer as JSON instead of a table
    heatmap = ""  # PNG file to draw: what of the picture the prompt was made of

    # demo: the same on a page
    host = "127.0.0.1"  # address that the page is served at; 0.0.0.0: to other machines, too
    port = 7860  # its port

    # export: a checkpoint for others
    push_to = ""  # user/name: the repository on the Hugging Face hub that it goes to, too
    merge = False  # True: put lora, dora or ia3 into the language model, which goes along as a plain folder
    with_base = False  # True: put the frozen language model and image encoder in, too
    overwrite = False  # True: replace an export that is there, on the hub as a further commit
    license = "unknown"  # of what was trained, as the hub names licences, such as apache-2.0
    private = False  # True: a new repository on the hub is seen by its owner alone

    # convert: raw data to Arrow files
    raw_root = ""  # folder of the raw data, see DATA.md
    min_answer_count = 9  # VQA: how often an answer must be the majority's to enter the vocabulary
    rest_val_images = 1000  # VQA: images of val that are held out of training
    allow_missing_images = False  # True: go on when more than 1 % of the images are missing

    # score, check_submission: the official evaluation
    task = "vqa"  # vqa, gqa or scienceqa
    predictions = ""  # JSON file of predictions
    annotations = ""  # JSON file of official annotations
    questions = ""  # JSON file of official questions


# Sacred has words of its own for `seed`, and takes them before the comment.
defaults._var_docs["seed"] = re.search(r"^    seed = .*  # (.+)$", inspect.getsource(defaults._func), re.MULTILINE)[1]
