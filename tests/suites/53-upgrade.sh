about="processes take over from each other under traffic and nobody is refused; options: --upgrades N (10)"

run() {
  case " $* " in
    *" --upgrades "*) testkit commucat-kills "$@" ;;
    *) testkit commucat-kills --upgrades 10 "$@" ;;
  esac
}
