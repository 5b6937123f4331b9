import sys; sys.path.insert(0,'/tmp/h/model/tests')
from model.scopes import Scope
from model.protocol import *
from model.explore import explore
def run(scope, rules=None, depth=30, seconds=20):
    r=explore(Protocol(scope,rules),depth,seconds)
    print(scope.name, r.states, r.moves, r.depth, r.is_whole, round(r.seconds,1), r.finding and r.finding.broken)
    if r.finding:
        for s in r.finding.steps: print("   ",s.label)
    return r
if __name__=="__main__":
    run(Scope("lease", dict(logouts=1,loads=1,losses=1,stalls=1)))
    run(Scope("again", dict(logins=1,logouts=1,everywheres=1,rotations=2,failovers=1,snapshots=1), principals=("ann",)*4,sessions=1,holds=False,caches=0,ticks=False,keeps=False))
    run(Scope("again", dict(logins=1,logouts=1,everywheres=1,rotations=2,failovers=1,snapshots=1), principals=("ann",)*4,sessions=1,holds=False,caches=0,ticks=False,keeps=True))
