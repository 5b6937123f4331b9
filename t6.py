from t2 import *
go("p8", dict(losses=8,trims=1,logouts=1,loads=0),rules=R,secs=30)
go("p8clock", dict(losses=8,steps=1,jumps=1),rules=R,secs=30, gateways=1)
