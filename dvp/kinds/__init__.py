"""How a task is read, answered and written down: a file a kind, in which build.py finds the same names.

OFFERED               settings that it restricts, with the values that it takes
DESCRIBED             settings that a checkpoint of it must agree on
SUBMISSION            the name of its file of answers, of settings and {checkpoint}
ALWAYS_BY_LENGTH      whether its batches are always of texts of like length
SHARDED               whether its frozen weights may lie in pieces on several devices (strategy=fsdp)
SOME_UNUSED           whether a pass may leave trained parameters without a gradient
transform             picture, size, whether to turn it as its EXIF says -> pixels (3, size, size)
seen                  width, height, size -> left, top, right, bottom of what that transform leaves of a picture
processor             size -> the same as CLIPImageProcessor of transformers is told of it
describe_transform    size, whether to turn -> what names that transform's numbers, in a cache of image tokens
columns               task -> the columns that its tables must have
read                  config, task, transform of pictures -> what makes datasets and batches of its tables
build_model           config, data, vision, options of the language model, the compressors' -> DVP
answer                config, data -> what answers a batch while validating and in the test
submit                config, task -> what makes a file of the answers to the test, or None
settings_in           path -> the settings that a published checkpoint tells itself
load_published        path, module -> nothing; the module has the weights of a published checkpoint
"""

from types import ModuleType

from dvp.kinds import classified, written

KINDS: dict[str, ModuleType] = {"classified": classified, "written": written}
