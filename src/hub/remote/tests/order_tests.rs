//! Who publishes what and is told what, while Redis does what it should.

use super::*;

#[test]
fn a_notification_goes_by_redis_to_everybody_and_its_publisher_is_answered() {
    let mut world = World::new(2);
    for node in &mut world.nodes {
        assert_told(&node.subscribe(1, None), &["subscribed"]);
        assert_told(&node.subscribe(2, Some("")), &[r#""id":"#]);
    }
    world.node().connect_publisher(0);
    world.node().send(0, &publish("x"));
    assert_eq!(world.node().take(0), [""; 0], "Redis doesn't have it yet");
    world.run(20);
    let told = world.node().take(0);
    assert_told(&told, &[r#"{"type":"published","delivered":2,"id":""#]);
    let entry = member(&told[0], "id").to_owned();
    for node in &mut world.nodes {
        assert_eq!(node.take(1), [delivery("x")]);
        let told = node.take(2);
        assert_eq!(told.len(), 1);
        assert_eq!(member(&told[0], "id"), entry);
        assert_eq!(node.position(), entry);
    }
}
