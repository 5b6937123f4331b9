from t3 import *
B=dict(logins=1,logouts=0,everywheres=1,rotations=2,failovers=1,snapshots=1)
K=dict(principals=("ann",)*4,sessions=1,holds=False,caches=0,ticks=False)
go("keeps2", B, keeps=True, **K, secs=60)
