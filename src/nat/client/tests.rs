use super::*;
use crate::protocol::stun::binding;

const SERVER: &str = "11.0.0.1:3478";

fn client() -> Client {
    Client::new([1; 32], Budget { packets: 1_000, bytes: 1 << 20 })
}

fn server() -> SocketAddr {
    SERVER.parse().expect("an address")
}

fn answer_to(transmit: &Transmit<Slot>) -> Vec<u8> {
    let id = Packet::scan(&transmit.payload).expect("own request").transaction_id();
    let mut buffer = [0; 64];
    let length = binding::write_success(&mut buffer, id, "11.9.9.9:4242".parse().expect("an address")).expect("room");
    buffer[..length].to_vec()
}

fn ask(client: &mut Client, now: Instant, tries: u8) -> (ExchangeId, Transmit<Slot>) {
    let id = client.start(now, Request::new(Slot(0), server(), Ask::Mapped, tries));
    (id, client.poll_transmit().expect("a first try"))
}

#[test]
fn an_answer_from_the_server_settles_the_exchange_and_teaches_the_round_trip() {
    let (mut client, t0) = (client(), Instant::now());
    let (id, sent) = ask(&mut client, t0, 3);
    client.handle_input(t0 + Duration::from_millis(20), Slot(0), server(), &answer_to(&sent));
    let Some(Event::Settled(settled, Outcome::Answered { answer, .. })) = client.poll_event() else {
        panic!("no answer")
    };
    assert_eq!((settled, answer.mapped()), (id, Some("11.9.9.9:4242".parse().expect("an address"))));
    assert_eq!(client.pace(server().ip()).round_trip(), Some(Duration::from_millis(20)));
    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn an_answer_from_another_source_socket_or_transaction_is_rejected() {
    let (mut client, t0) = (client(), Instant::now());
    let (_, sent) = ask(&mut client, t0, 3);
    let answer = answer_to(&sent);
    client.handle_input(t0, Slot(0), "11.0.0.1:3479".parse().expect("an address"), &answer);
    client.handle_input(t0, Slot(0), "11.0.0.2:3478".parse().expect("an address"), &answer);
    client.handle_input(t0, Slot(1), server(), &answer);
    let mut other = answer.clone();
    other[12] ^= 1;
    client.handle_input(t0, Slot(0), server(), &other);
    client.handle_input(t0, Slot(0), server(), b"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\n");
    assert_eq!((client.poll_event(), client.stats().rejected), (None, 5));
}

#[test]
fn a_repeated_answer_is_counted_and_reported_once() {
    let (mut client, t0) = (client(), Instant::now());
    let (_, sent) = ask(&mut client, t0, 3);
    for _ in 0..3 {
        client.handle_input(t0, Slot(0), server(), &answer_to(&sent));
    }
    assert!(client.poll_event().is_some());
    assert_eq!((client.poll_event(), client.stats().repeated), (None, 2));
}

#[test]
fn seven_tries_into_silence_take_fourteen_tenths_of_a_second() {
    let (mut client, t0) = (client(), Instant::now());
    ask(&mut client, t0, 7);
    let mut sent = 1;
    while let Some(at) = client.poll_timeout() {
        client.handle_timeout(at);
        sent += usize::from(client.poll_transmit().is_some());
        if let Some(event) = client.poll_event() {
            assert_eq!(event, Event::Settled(ExchangeId(0), Outcome::Silent));
            assert_eq!(at - t0, Duration::from_millis(1_400));
        }
    }
    assert_eq!(sent, 7);
}

#[test]
fn a_late_answer_to_an_early_try_still_counts() {
    let (mut client, t0) = (client(), Instant::now());
    let (_, first) = ask(&mut client, t0, 2);
    while let Some(at) = client.poll_timeout() {
        client.handle_timeout(at);
    }
    assert!(matches!(client.poll_event(), Some(Event::Settled(_, Outcome::Silent))));
    client.handle_input(t0 + Duration::from_secs(3), Slot(0), server(), &answer_to(&first));
    assert!(matches!(client.poll_event(), Some(Event::Settled(_, Outcome::Answered { .. }))));
}

#[test]
fn two_icmp_errors_settle_an_exchange_and_one_does_not() {
    let (mut client, t0) = (client(), Instant::now());
    ask(&mut client, t0, 5);
    let error = Unreachable { refusal: Refusal::Port, offender: None };
    client.handle_error(t0, Slot(0), server(), error);
    assert_eq!(client.poll_event(), None);
    client.handle_error(t0, Slot(0), server(), error);
    assert_eq!(client.poll_event(), Some(Event::Settled(ExchangeId(0), Outcome::Refused(error))));
}

#[test]
fn the_budget_ends_the_tries() {
    let mut client = Client::new([1; 32], Budget { packets: 2, bytes: 1 << 20 });
    ask(&mut client, Instant::now(), 9);
    let mut sent = 1;
    while let Some(at) = client.poll_timeout() {
        client.handle_timeout(at);
        sent += usize::from(client.poll_transmit().is_some());
    }
    assert_eq!(sent, 2);
    client.start(Instant::now(), Request::new(Slot(0), server(), Ask::Mapped, 1));
    assert_eq!(client.poll_transmit(), None);
}

#[test]
fn losses_count_the_tries_before_the_answered_one() {
    let (mut client, t0) = (client(), Instant::now());
    ask(&mut client, t0, 5);
    let at = client.poll_timeout().expect("a second try");
    client.handle_timeout(at);
    let second = client.poll_transmit().expect("a second try");
    client.handle_input(at, Slot(0), server(), &answer_to(&second));
    assert_eq!(client.losses(), (1, 1));
}

/// P2: an attacker who knows both endpoints and the protocol still has to guess 96 bits.
#[test]
fn p2_a_million_blind_spoofs_are_all_rejected() {
    let (mut client, t0) = (client(), Instant::now());
    for _ in 0..32 {
        ask(&mut client, t0, 3);
    }
    let mut rng = StdRng::seed_from_u64(2);
    let mut forged = [0; 32];
    let template = {
        let (_, sent) = ask(&mut client, t0, 3);
        answer_to(&sent)
    };
    forged.copy_from_slice(&template);
    for _ in 0..1_000_000 {
        rng.fill_bytes(&mut forged[8..20]);
        client.handle_input(t0, Slot(0), server(), &forged);
    }
    assert_eq!((client.poll_event(), client.stats().rejected, client.stats().received), (None, 1_000_000, 0));
}
