//! Every row of the comparison, live: what stands in front × where it leads × where the pod lives ×
//! the policy.
use tests::{
    fronts::{rows, stage::Stage},
    kubeproxy::{Backend, Family, Mode, Settings},
};

#[test]
fn scratch() {
    let stage = Stage::raise(
        rows::all().expect("rows"),
        Settings::of(Mode::Iptables(Backend::Nft)),
        Family::V4,
    )
    .expect("raised");
    std::fs::copy(stage.objects().path(), "/tmp/wf-objects.json").expect("copied");
    let start = std::time::Instant::now();
    let (came, records) = stage.observe().expect("observed");
    let text = format!("{:?}\n{came:#?}\n", start.elapsed());
    std::fs::write("/tmp/wf-came.txt", text).expect("w");
    std::fs::write("/tmp/wf-records.json", serde_json::to_string(&records).expect("j")).expect("w");
}
