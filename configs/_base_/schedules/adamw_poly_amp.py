# The same on a GPU in mixed precision (bfloat16 if the card has it, else float16) and with TF32; on a CPU in float32.
_base_ = ['./adamw_poly.py']
optim_wrapper = dict(type='AutoAmpOptimWrapper')
