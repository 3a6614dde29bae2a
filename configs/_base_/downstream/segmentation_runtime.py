# Runs of mmseg's segmentors that start from pre-trained weights.
custom_imports = dict(imports=['mmmoco.engine'], allow_failed_imports=False)
custom_hooks = [dict(type='mmmoco.VerifyPretrainedHook')]
