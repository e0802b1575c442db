"""tmp"""
import numpy as np
def write(folder, settings, dataset, result, records):
    G=dataset.num_groups
    def psi(name, split):
        b=getattr(dataset,split); d=(result["labels"]["dense"][split]==b.y); s=(result["labels"][name][split]==b.y)
        diff=d.astype(float)-s
        g=np.stack([diff[:,b.group==k].mean(1) for k in range(G)],1)-diff.mean(1,keepdims=True)
        return g, s.mean(1)
    for name in result["labels"]:
        out=[]
        for split in ("train","test"):
            g,a=psi(name,split); out.append(f"{split}: acc {100*a.mean():.2f} maxgap {100*g.max(1).mean():.2f} {np.round(100*g.max(1),2)}")
        print(f"{name:24s}", " | ".join(out), "met", (psi(name,'train')[0].max(1)<=settings["tolerance"]).sum(), result["delivered"].get(name))
