from t3 import *
from model.scopes import *
import sys
S={
 "stall": dict(budgets=dict(logouts=1,loads=1,losses=1,stalls=1)),
 "gap": dict(budgets=dict(logouts=1,logins=1,loads=1,trims=1),principals=("ann","bob"),gateways=2),
 "outage": dict(budgets=dict(losses=8,trims=1,steps=1,loads=1),gateways=1),
 "full": dict(budgets=dict(logouts=1,loads=1,stalls=1), is_full=True,holds=False),
 "primary": dict(budgets=dict(logouts=1,failovers=1,stalls=1,losses=1),old_lives=True),
 "idle": dict(budgets=dict(uses=2,loads=1,losses=1,strays=1),caches=2,idle=4),
}
for n in sys.argv[1:] or S:
    go(n,**S[n],secs=25)
