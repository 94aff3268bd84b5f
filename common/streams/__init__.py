from common.streams.contract import *
