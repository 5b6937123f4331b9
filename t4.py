from t3 import *
B=dict(logins=1,logouts=1,everywheres=1,rotations=1,failovers=1,snapshots=1)
K=dict(principals=("ann",)*3,sessions=1,holds=False,caches=0,ticks=False)
go("keeps", B, keeps=True, **K, secs=100)
