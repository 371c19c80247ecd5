"""The model registry: folders of models as immutable revisions, and the aliases that say which one serves.

errors     what is wrong with a model, a revision or an alias
manifest   what a revision says of itself: files with digests, licence, context, weights, evaluations
digests    SHA-256 of files, and the short digest that `versions.model` of a result names
folders    which files of a folder are taken, and which are refused
safetensors, onnx    the little that is read of the weights' own files
projections          the linear layers of a graph, by the names of their modules
adapters   LoRA adapters: which folders are taken, and whether they fit their base
licences   what is known of licences that restrict use
cards      a model card's front matter
facts      a folder's facts together: context length, weights, chat template, card
hub        fetching from a hub, resumed and checked
convert    a Hugging Face folder to one that is served, where the extra is installed
adding     fetch, convert and add in one
storage    atomic writes, locks, copying
aliases    `champion`, `canary`: promoted, rolled back
registry   adding, finding, promoting, removing
entries    one revision, and whether its files are whole
watch      noticing that an alias points elsewhere
following  loading what it points at then, and keeping the old one where that fails

Nothing here runs a model, and nothing knows Kafka: the inference service and the command use it.
"""
