# For every fine-tuning run: weights are compared with their file before the
# first iteration. The import lets other libraries' own tools find the hook.
custom_imports = dict(
    imports=['mmmoco.engine', 'mmmoco.models'], allow_failed_imports=False
)
custom_hooks = [dict(type='mmmoco.VerifyPretrainedHook')]
randomness = dict(seed=0)
