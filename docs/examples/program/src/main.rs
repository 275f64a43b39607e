//! Prints a number with its digits in groups of three.

fn main() {
    let number: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(number);
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    println!("{grouped}");
}
