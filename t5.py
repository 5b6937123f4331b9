from t2 import *
go("losses", dict(logouts=1,loads=2,losses=5,stalls=0),rules=R,secs=60)
