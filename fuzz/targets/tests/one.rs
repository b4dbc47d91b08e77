#[test]
fn one() {
    let name = std::env::var("T").unwrap();
    let data = std::fs::read(std::env::var("F").unwrap()).unwrap();
    fuzz_targets::TARGETS.iter().find(|t| t.0 == name).unwrap().1(&data);
}
