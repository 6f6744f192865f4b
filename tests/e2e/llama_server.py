"""llama.cpp's own server in this process: `python llama_server.py MODEL.gguf PORT`, until it is killed.

Run by the interpreter of build/llama, where `xllamacpp` is installed.
"""

import signal
import sys

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.hostname = "127.0.0.1"
params.port = int(sys.argv[2])
params.n_ctx = 4096
params.n_parallel = 1
params.use_jinja = True
server = xllamacpp.Server(params)
signal.pause()
