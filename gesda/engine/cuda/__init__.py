"""The cuda engine: kernels/ on a GPU, through CuPy.

`engine.py` is the engine, `device.py` what it asks of a device, `cupy_device.py` a GPU. `pretrain.py` and `dense.py`
launch kernels by the records in `records.py`; `data.py` brings rows to them. Importing this package imports nothing;
its modules may import `gesda.spec` and `gesda.engine`.
"""
