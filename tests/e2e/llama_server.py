"""Runs llama.cpp's server in this process until it is killed: `python llama_server.py MODEL.gguf PORT`.

The interpreter is that of build/llama, where `make servers` installs `xllamacpp`.
"""

import signal
import sys

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.hostnames = ["127.0.0.1"]
params.port = int(sys.argv[2])
params.n_ctx = 4096
params.n_parallel = 1
params.use_jinja = True
# ggml's threads spin while they wait for each other: on a busy machine one thread is faster than two.
params.cpuparams.n_threads = 1
server = xllamacpp.Server(params)
signal.pause()
